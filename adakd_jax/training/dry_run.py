"""Everything of a run but its weights: settings, shapes, and the train step compiled from shapes
alone.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from rich.table import Table

from adakd_jax.axes import CachedTeacher, TokenBatch, batch_axes_of
from adakd_jax.config import RunConfig, TeacherConfig
from adakd_jax.config.remarks import remarks
from adakd_jax.console import Console
from adakd_jax.hf.lora import lora_of
from adakd_jax.hf.student import compute_dtype
from adakd_jax.models.config import AttentionImplementation, DecoderConfig
from adakd_jax.models.decoder import abstract_decoder
from adakd_jax.models.families import decoder_config
from adakd_jax.models.lora import split_adapters
from adakd_jax.models.quantized import quantize_params
from adakd_jax.models.size import parameters_in_words
from adakd_jax.sharding import rules_of, shardings_like
from adakd_jax.teacher_cache.reading import TeacherCache
from adakd_jax.training.architecture import model_configs
from adakd_jax.training.cached import open_cache
from adakd_jax.training.counted_steps import check_schedules_of_data
from adakd_jax.training.learned import initial_learned
from adakd_jax.training.models import teacher_dtype, teacher_quantization
from adakd_jax.training.parts import step_parts
from adakd_jax.training.positions import check_lengths
from adakd_jax.training.state import TrainState, init_state
from adakd_jax.training.step import StepParts, make_train_step

# Without the data, how many steps its epochs make is unknown; only schedules depend on it.
ASSUMED_STEPS = 1000
GIB = 2**30


class Shapes(NamedTuple):
    """Both models and a batch, as shapes; None for a teacher that has no say. `remarks` are on what
    is longer than a model was made for.
    """

    teacher: DecoderConfig | None
    teacher_def: nnx.GraphDef | None
    teacher_params: Any
    student: DecoderConfig
    student_def: nnx.GraphDef
    student_params: Any
    batch: TokenBatch
    remarks: tuple[str, ...] = ()

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
    """Check a run without weights: build both models as shapes, compile the train step, print
    sizes. Data is read only to count the steps of epochs that a schedule has to fit.

    Args:
        config: all settings.
        console: where to print.

    Returns:
        bytes by name, as printed.

    Raises:
        ModelNotFoundError: a model is out of reach and its settings have no `architecture`.
        ScheduleError: settings do not fit the steps that the data makes.
        TooLongError: rows or answers are longer than learned positions.
        ValueError: an architecture that is not supported.
    """
    console = console or Console()
    check_schedules_of_data(config, console)
    shapes = run_shapes(config)
    for remark in (*remarks(config), *shapes.remarks):
        console.print(f"note     {remark}", soft_wrap=True)
    train_step, (state, *others) = abstract_step(config, shapes)
    with console.status("compiling the train step from shapes"):
        compiled = train_step.lower(state, *others).compile()
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


# One implementation for all models, or what says it for each.
AttentionOf = AttentionImplementation | Callable[[DecoderConfig], AttentionImplementation]
# A jitted train step, and the shapes of its arguments: state, teacher's weights, batch, frozen
# weights of the student.
AbstractStep = tuple[Any, tuple[TrainState, Any, TokenBatch, Any]]


def abstract_step(config: RunConfig, shapes: Shapes, mesh: Mesh | None = None) -> AbstractStep:
    """The train step and its arguments as shapes, on a mesh with their shardings."""
    teacher = None
    if shapes.teacher is not None and shapes.teacher_def is not None:
        teacher = shapes.teacher, shapes.teacher_def
    steps = config.training.steps or ASSUMED_STEPS
    student = shapes.student, shapes.student_def
    cache = open_cache(config)
    axes = () if mesh is None else batch_axes_of(mesh)
    parts = step_parts(config, steps, student, teacher, batch_axes=axes, cache=cache)
    state = jax.eval_shape(functools.partial(_first_state, config, parts, shapes))
    arguments = (state, shapes.teacher_params, shapes.batch, shapes.base)
    if mesh is None:
        return make_train_step(parts), arguments
    rules = rules_of(config.mesh, "student")
    shardings = shardings_like(state, mesh, rules)
    of_teacher = shardings_like(shapes.teacher_params, mesh, rules_of(config.mesh, "teacher"))
    of_batch = jax.tree.map(lambda _: NamedSharding(mesh, P(None, axes)), shapes.batch)
    placed = jax.tree.map(
        lambda leaf, split: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=split),
        arguments,
        (shardings, of_teacher, of_batch, shardings_like(shapes.base, mesh, rules)),
    )
    return make_train_step(parts, shardings), placed


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


def run_shapes(
    config: RunConfig,
    *,
    platform: str | None = None,
    layout: tuple[int, int] | None = None,
    attention: AttentionOf | None = None,
    sinks: bool = True,
) -> Shapes:
    """Both models and a batch, as shapes.

    Args:
        config: all settings.
        platform: for which precisions are chosen; by default that of this process.
        layout: micro-batches of a step, and rows of each; by default those of the settings, with a
            row for each example.
        attention: its implementation, or what says it for a model; by default that of this
            process's platform. Models with sinks have XLA's in any case.
        sinks: False leaves sinks out, of models that are only counted.

    Raises:
        ModelNotFoundError: a model is out of reach and its settings have no `architecture`.
        ValueError: an architecture that is not supported.
    """
    teacher_json, student_json = model_configs(config)
    student = _with_attention(_student(config, student_json, platform), attention, sinks)
    whole = None if teacher_json is None else decoder_config(teacher_json)
    length_remarks = check_lengths(config, whole, student)
    teacher, teacher_def, teacher_params = None, None, None
    if config.teacher is not None and teacher_json is not None and config.learns_from_weights:
        precision = teacher_dtype(config.teacher, platform)
        teacher = dataclasses.replace(decoder_config(teacher_json), compute_dtype=precision)
        teacher = _with_attention(teacher, attention, sinks)
        teacher_def, teacher_params = _abstract_teacher(config.teacher, teacher)
    size = (*(layout or _layout(config)), config.data.max_length)
    batch = jax.eval_shape(lambda: _batch(size, open_cache(config)))
    lora = config.student.lora
    held = abstract_decoder(student, jnp.dtype(lora.base_dtype if lora else "float32"))
    return Shapes(
        teacher, teacher_def, teacher_params, student, *held, batch, tuple(length_remarks)
    )


def _student(config: RunConfig, hf: dict[str, Any], platform: str | None) -> DecoderConfig:
    student = dataclasses.replace(
        decoder_config(hf),
        compute_dtype=compute_dtype(config.student, platform),
        remat=config.student.remat,
    )
    lora = config.student.lora
    return student if lora is None else dataclasses.replace(student, lora=lora_of(lora, student))


def _with_attention(
    model: DecoderConfig, attention: AttentionOf | None, sinks: bool
) -> DecoderConfig:
    """A model with an implementation of attention, or with the one that is said for it."""
    has = model.attention_sinks and sinks
    chosen = attention(model) if callable(attention) else attention
    chosen = "xla" if has and chosen is not None else chosen
    return dataclasses.replace(model, attention_implementation=chosen, attention_sinks=has)


def _abstract_teacher(
    config: TeacherConfig, teacher: DecoderConfig
) -> tuple[nnx.GraphDef, dict[str, Any]]:
    graphdef, params = abstract_decoder(teacher, jnp.dtype(teacher.compute_dtype))
    how = teacher_quantization(config)
    if how is not None:
        params = jax.eval_shape(lambda params: quantize_params(params, how), params)
    return graphdef, params


def _layout(config: RunConfig) -> tuple[int, int]:
    """Micro-batches and rows of each, with a row for each example."""
    training = config.training
    rows = training.batch_rows or training.batch_examples or 1
    micro = training.micro_batch_rows or rows
    return math.ceil(rows / micro), micro


def _batch(size: tuple[int, int, int], cache: TeacherCache | None) -> TokenBatch:
    batch = TokenBatch._make([*[jnp.zeros(size, jnp.int32)] * 4, None])
    if cache is None:
        return batch
    wide = (*size, cache.manifest.form.k)
    taught = jnp.zeros(wide, jnp.int32), jnp.zeros(wide, jnp.float32), jnp.zeros(size, jnp.float32)
    return batch._replace(taught=CachedTeacher(*taught))


def _print(console: Console, config: RunConfig, shapes: Shapes, sizes: dict[str, int]) -> None:
    micro_batches, rows, length = shapes.batch.tokens.shape
    for name, model in (("teacher", shapes.teacher), ("student", shapes.student)):
        if model is None:
            continue
        parameters = parameters_in_words(dataclasses.replace(model, lora=None))
        console.print(
            f"{name}  {model.family}, {parameters}, {model.num_layers} "
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
    console.print("dry run: settings, models and train step are in order; no weights were read")


def _bytes(tree: Any) -> int:
    return sum(
        math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree)
    )
