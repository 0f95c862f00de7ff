"""The two models of a run: loaded as training has them, and in words."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from adakd_jax.config import RunConfig, StudentCheckpoint, StudentPruned, TeacherConfig
from adakd_jax.console import Console
from adakd_jax.hf.load import load_pretrained
from adakd_jax.hf.locate import ModelNotFoundError
from adakd_jax.hf.lora import merge_peft, named_after
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.hf.student import Held, init_student
from adakd_jax.hf.tokenizer import check_same_tokens
from adakd_jax.hf.vocabulary import check_tokenizer_fits, tokenizer_size
from adakd_jax.models.config import ComputeDtype
from adakd_jax.models.quantized import Quantization, quantization_of
from adakd_jax.models.size import parameter_count, parameters_in_words
from adakd_jax.sharding import Rules, parameter_spec, rules_of
from adakd_jax.training.architecture import check_architecture


def load_teacher(
    config: TeacherConfig,
    mesh: Mesh | None = None,
    rules: Rules | None = None,
    *,
    weights: bool = True,
) -> Pretrained:
    """Load the teacher from `path`, or from `fallback` if that cannot be reached, onto the mesh;
    its adapter, if it has one, is merged into it. Without `weights`, its parameters are shapes.
    """
    options: dict[str, Any] = {
        "weights": weights,
        "dtype": jnp.dtype(teacher_dtype(config)),
        "quantization": teacher_quantization(config),
    }
    if mesh is not None and rules is not None:
        options |= {"mesh": mesh, "rules": lambda path: parameter_spec(path, rules)}
    try:
        teacher = load_pretrained(config.path, revision=config.revision, **options)
    except ModelNotFoundError:
        if config.fallback is None:
            raise
        teacher = load_pretrained(config.fallback, **options)
    check_architecture(config.architecture, teacher, "teacher")
    if config.adapter is None:
        return teacher
    join = merge_peft if weights else named_after
    return join(teacher, config.adapter)


def load_student(
    config: RunConfig,
    teacher: Pretrained | None,
    mesh: Mesh | None = None,
    held: Held = "all",
    console: Console | None = None,
) -> Pretrained:
    """Make the student as training starts from it, on the mesh, and check that it fits the
    teacher; of its weights, those that are asked for.

    What a pruned student keeps is measured, once a run, if any weights are.
    """
    choice, fitted = None, None
    if isinstance(config.student, StudentPruned) and teacher is not None:
        # Only who needs it waits for its imports.
        from adakd_jax.pruning.shape import planned_choice
        from adakd_jax.training.pruned import kept_of_teacher

        if held == "none":
            choice = planned_choice(config.student, teacher.source.hf_config)
        else:
            kept = kept_of_teacher(config, teacher, mesh, console or Console(quiet=True))
            choice, fitted = kept.choice, kept.fitted
    student = init_student(
        config.student,
        teacher,
        jax.random.key(config.seed),
        mesh=mesh,
        rules=rules_of(config.mesh, "student"),
        held=held,
        choice=choice,
        fitted=fitted,
    )
    check_tokenizer_fits(student, "the student")
    if isinstance(config.student, StudentCheckpoint):
        check_architecture(config.student.architecture, student, "student")
        if teacher is not None:
            check_same_tokens(student, teacher)
    return student


def teacher_dtype(config: TeacherConfig, platform: str | None = None) -> ComputeDtype:
    """Precision of the teacher's weights and compute: the given one, or the one the platform (by
    default that of this process) is fast in.
    """
    platform = platform or jax.default_backend()
    return config.dtype or ("float32" if platform == "cpu" else "bfloat16")


def teacher_quantization(config: TeacherConfig) -> Quantization | None:
    """How the teacher's kernels are rounded; None: not."""
    if config.quantization is None:
        return None
    return Quantization(config.quantization, config.quantization_tile)


def describe(model: Pretrained) -> str:
    """Name, size and shape of a model, in one line."""
    config = model.config
    plain = dataclasses.replace(config, lora=None)
    how = config.compute_dtype
    if (rounded := quantization_of(model.params)) is not None:
        how += f", kernels {rounded}"
    if config.lora is not None:
        adapters = parameter_count(config) - parameter_count(plain)
        how += f", of which nothing is trained but adapters of {adapters / 1e6:.2f}M"
    return (
        f"{model.source.name}: {parameters_in_words(plain)}, {config.num_layers} layers, "
        f"width {config.embed_dim}, vocabulary {config.vocab_size:,}, {how}"
    )


def vocabulary_note(student: Pretrained, teacher: Pretrained) -> str | None:
    """What is cut where two embeddings are of different sizes, by padding or by added tokens."""
    sizes = sorted(model.config.vocab_size for model in (student, teacher))
    if sizes[0] == sizes[1]:
        return None
    known = [model.tokenizer for model in (student, teacher) if model.tokenizer is not None]
    added = max(map(tokenizer_size, known), default=0) - sizes[0]
    rest = "the rest is padding" if added <= 0 else f"{added:,} tokens that one adds are left out"
    return (
        f"vocabulary  embeddings of {sizes[0]:,} and {sizes[1]:,} tokens: the loss is over the "
        f"first {sizes[0]:,}, {rest}"
    )
