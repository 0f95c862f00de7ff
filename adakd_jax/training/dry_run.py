"""Everything of a run but its weights: settings, shapes, and the train step compiled from shapes
alone.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from rich.console import Console
from rich.table import Table

from adakd_jax.axes import TokenBatch
from adakd_jax.config import RunConfig
from adakd_jax.hf.lora import lora_of
from adakd_jax.hf.student import compute_dtype
from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.decoder import abstract_decoder
from adakd_jax.models.families import decoder_config
from adakd_jax.models.lora import split_adapters
from adakd_jax.training.architecture import model_configs
from adakd_jax.training.learned import initial_learned
from adakd_jax.training.prepare import step_parts, teacher_dtype
from adakd_jax.training.state import TrainState, init_state
from adakd_jax.training.step import StepParts, make_train_step

# Without the data, how many steps its epochs make is unknown; only schedules depend on it.
ASSUMED_STEPS = 1000
GIB = 2**30


class Shapes(NamedTuple):
    """Both models and a batch, as shapes; None for a teacher that has no say."""

    teacher: DecoderConfig | None
    teacher_def: nnx.GraphDef | None
    teacher_params: Any
    student: DecoderConfig
    student_def: nnx.GraphDef
    student_params: Any
    batch: TokenBatch

    @property
    def trained(self) -> Any:
        """The student's weights that are trained."""
        return self.student_params if self.student.lora is None else self._parts[1]

    @property
    def base(self) -> Any:
        """The student's frozen weights; None if all are trained."""
        return None if self.student.lora is None else self._parts[0]

    @property
    def _parts(self) -> tuple[Any, Any]:
        return split_adapters(self.student_params)


def dry_run(config: RunConfig, console: Console | None = None) -> dict[str, int]:
    """Check a run without weights or data: build both models as shapes, compile the train step,
    print sizes.

    Args:
        config: all settings.
        console: where to print.

    Returns:
        bytes by name, as printed.

    Raises:
        ModelNotFoundError: a model is out of reach and its settings have no `architecture`.
        ValueError: an architecture that is not supported.
    """
    console = console or Console()
    shapes = _shapes(config)
    steps = config.training.steps or ASSUMED_STEPS
    teacher = None
    if shapes.teacher is not None and shapes.teacher_def is not None:
        teacher = shapes.teacher, shapes.teacher_def
    parts = step_parts(config, steps, (shapes.student, shapes.student_def), teacher)
    state = jax.eval_shape(functools.partial(_first_state, config, parts, shapes))
    with console.status("compiling the train step from shapes"):
        compiled = (
            make_train_step(parts)
            .lower(state, shapes.teacher_params, shapes.batch, shapes.base)
            .compile()
        )
    memory = compiled.memory_analysis()
    sizes = {
        "teacher": _bytes(shapes.teacher_params),
        "student": _bytes(shapes.student_params),
        "optimizer and averages": _bytes(state) - _bytes(shapes.trained),
        "batch": _bytes(shapes.batch),
        "temporaries": memory.temp_size_in_bytes,
    }
    sizes["total"] = sum(sizes.values())
    _print(console, config, shapes, sizes)
    return sizes


def _first_state(config: RunConfig, parts: StepParts, shapes: Shapes) -> TrainState:
    student, key = shapes.student, jax.random.key(config.seed)
    width = (shapes.teacher or student).embed_dim
    return init_state(
        jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes.trained),
        parts.optimizer,
        seed=config.seed,
        average=parts.average_decay is not None,
        learned=initial_learned(config.distill, student.embed_dim, width, key),
        learner=parts.learner,
    )


def _teacher_shapes(
    config: RunConfig, description: dict[str, Any] | None
) -> tuple[DecoderConfig | None, nnx.GraphDef | None, Any]:
    if config.teacher is None or description is None or not config.distill.has_teacher:
        return None, None, None
    precision = teacher_dtype(config.teacher)
    teacher = dataclasses.replace(decoder_config(description), compute_dtype=precision)
    return teacher, *abstract_decoder(teacher, jnp.dtype(precision))


def _shapes(config: RunConfig) -> Shapes:
    teacher_json, student_json = model_configs(config)
    student = dataclasses.replace(
        decoder_config(student_json),
        compute_dtype=compute_dtype(config.student),
        remat=config.student.remat,
    )
    if (lora := config.student.lora) is not None:
        student = dataclasses.replace(student, lora=lora_of(lora, student))
    training = config.training
    rows = training.batch_rows or training.batch_examples or 1
    micro = training.micro_batch_rows or rows
    size = (math.ceil(rows / micro), micro, config.data.max_length)
    batch = jax.eval_shape(lambda: TokenBatch(*[jnp.zeros(size, jnp.int32)] * 4))
    return Shapes(
        *_teacher_shapes(config, teacher_json),
        student,
        *abstract_decoder(student, jnp.dtype(lora.base_dtype if lora else "float32")),
        batch,
    )


def _print(console: Console, config: RunConfig, shapes: Shapes, sizes: dict[str, int]) -> None:
    micro_batches, rows, length = shapes.batch.tokens.shape
    for name, model in (("teacher", shapes.teacher), ("student", shapes.student)):
        if model is None:
            continue
        parameters = sum(
            math.prod(leaf.shape) for leaf in jax.tree.leaves(getattr(shapes, f"{name}_params"))
        )
        console.print(
            f"{name}  {model.family}, {parameters / 1e6:,.1f}M parameters, {model.num_layers} "
            f"layers, width {model.embed_dim}, vocabulary {model.vocab_size:,}, "
            f"computes in {model.compute_dtype}",
            soft_wrap=True,
        )
    if shapes.base is not None:
        adapters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes.trained))
        console.print(f"trained  adapters of {adapters / 1e6:,.2f}M parameters, nothing else")
    bound = (
        " at most: examples are packed, so that fewer rows will do"
        if config.training.batch_examples
        else ""
    )
    console.print(
        f"step     {micro_batches} micro-batches of {rows} rows of {length} tokens{bound}"
    )
    table = Table(
        title=f"memory on one {jax.default_backend()} device, as compiled", title_justify="left"
    )
    table.add_column("")
    table.add_column("GiB", justify="right")
    for name, size in sizes.items():
        table.add_row(name, f"{size / GIB:,.3f}", style="bold" if name == "total" else None)
    console.print(table)
    console.print(
        "dry run: settings, models and train step are in order; no weights or data were read"
    )


def _bytes(tree: Any) -> int:
    return sum(
        math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree)
    )
