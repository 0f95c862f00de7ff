"""The distillation loss from hidden states and output embeddings: [B, T, V] never exists.

Response tokens are visited in chunks, twice: pass 1 surveys them, which gives scores, selection and
temperatures; pass 2 visits the kept ones, computes the loss and, while a chunk's logits are there,
its gradients.
"""

import functools
from typing import Any, NamedTuple

import jax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from adakd_jax.axes import WIDTH_AXIS, CachedTeacher, Head, left_axes, size_along
from adakd_jax.config.distill import DistillConfig
from adakd_jax.distill.chunks import chunk_size_for, scaled
from adakd_jax.distill.feature_chunks import chunked_feature_loss
from adakd_jax.distill.objective import add_features, check_parts
from adakd_jax.distill.objective import denominators as step_denominators
from adakd_jax.distill.signals import PER_TOKEN, Denominators, Features, LossReport, Signals
from adakd_jax.distill.vocab_logits import Layout, Student, Teacher
from adakd_jax.distill.vocab_passes import two_passes


def vocab_distillation_loss(
    config: DistillConfig,
    student_hidden: Float[Array, "*tokens Ds"],
    student_head: Head,
    teacher_hidden: Float[Array, "*tokens Dt"] | None,
    teacher_head: Head | None,
    labels: Int[Array, "*tokens"],
    signals: Signals,
    *,
    cached: CachedTeacher | None = None,
    features: Features | None = None,
    denominators: Denominators | None = None,
    chunk_size: int | None = None,
    batch_axes: tuple[str, ...] = (),
    gradient_norms: bool = False,
) -> tuple[Float[Array, ""], LossReport]:
    """Distillation loss of one micro-batch, equal to `distillation_loss` of the two heads' logits.

    Head products, counted in FLOPs: (2·Ds + 2·Dt)·V per response token if tokens must be ranked
    first (pass 1), and (6·Ds + 2·Dt)·V per kept token (pass 2). Prompt and padding cost nothing.
    A gradient through the temperatures adds a pass between them, (2·Ds + 2·Dt)·V per kept token.
    Of a head that nobody wants the gradient of, the compiler makes none: 2·Ds·V and V·Ds less.
    With `config.keep_logits`, pass 2 costs 4·Ds·V, and 2·tokens·V numbers of memory; in float32
    with the same result, in bfloat16 with that of the rounded logits.

    Args:
        config: one choice per slot, static.
        student_hidden: [..., Ds], last hidden states, aligned with `labels`.
        student_head: the student's output embedding.
        teacher_hidden: [..., Dt]. None if the teacher has no say (`config.has_teacher`): supervised
            fine-tuning, with 6·Ds·V FLOPs per response token.
        teacher_head: the teacher's, or None. Where the two differ in size (one tokenizer,
            embeddings padded differently) both are cut to the tokens that both have.
        labels: [...], next-token ids; −100 marks prompt and padding.
        signals: of this optimizer step.
        cached: in place of the teacher's hidden states and head: its distributions [..., k], which
            the student's are compared with as `config.cached_tail` says; no products of a teacher.
        features: hidden states [..., M, D], if `config.has_features`.
        denominators: of the whole step (see `denominators`). Default: those of this micro-batch.
        chunk_size: C, tokens whose logits [C, V] exist at a time, on each device. Default: the
            configuration's, or by the device and V (`chunk_size_for`).
        batch_axes: mesh axes over which the first dimension of the token arrays is sharded; the
            mesh is the context's. Each device compacts its own tokens; scores are gathered once.
            Inside a `shard_map` over some of them, loss and report are still those of all tokens,
            but gradients are sums over the others: the caller adds them up.
        gradient_norms: measure each token's gradient too, where gradients are taken.

    Returns:
        The loss [] and a `LossReport`. A term without tokens is 0, with zero gradient.

    Raises:
        ValueError: the chunk size is not positive; a rule is unknown, or lacks what it needs
            (teacher, features, random key, learned parameter).

    Scope: the global micro-batch: ranks, medians and sums run over all tokens of all devices.
    Gradient flows to the student's hidden states and features, its head's weight and bias, and to
    `signals.learned`; any cotangent is right. The head's gradient is accumulated in float32.

    References:
        AdaKD (arXiv 2510.11615) eqs. 3-10; each rule's docstring names its deviations.
    """
    check_parts(config, teacher_head is not None or cached is not None, features)
    if denominators is None:
        denominators = step_denominators(config, labels.reshape(-1), signals)
    layout = _layout(config, student_head, teacher_head, labels, chunk_size, batch_axes)
    layout = layout._replace(gradient_norms=gradient_norms)
    learned = signals.learned
    if learned is not None:  # the projection is no part of the passes
        learned = {name: value for name, value in learned.items() if name == "temperature"}
    student = Student(student_hidden, student_head.weight, student_head.bias, learned)
    teacher = None
    if config.has_teacher and teacher_head is not None:
        teacher = Teacher(teacher_hidden, teacher_head.weight, teacher_head.bias)
    elif config.has_teacher:
        teacher = cached
    fixed = signals._replace(learned=None)
    result: Any = _loss(layout, student, teacher, labels, fixed, denominators)
    loss, report = result
    if not config.has_features:
        return loss, jax.lax.stop_gradient(report)
    term = chunked_feature_loss(
        features, report.hard, signals, denominators.feature,
        chunk_size=layout.chunk_size, batch_axes=layout.batch_axes,
    )  # fmt: skip
    return add_features(config, loss, report, term, signals)


def _layout(
    config: DistillConfig,
    student: Head,
    teacher: Head | None,
    labels: Array,
    chunk_size: int | None,
    batch_axes: tuple[str, ...],
) -> Layout:
    teacher = teacher or student
    size = min(student.size, teacher.size)
    own_axes = left_axes(batch_axes)
    shards = size_along(own_axes)
    chosen = chunk_size or config.chunk_size or chunk_size_for(size, max(1, labels.size // shards))
    if chosen < 1:
        raise ValueError(f"chunk_size = {chosen} must be at least 1 token")
    return Layout(
        config=config,
        size=size,
        student=(student.scale, student.soft_cap),
        teacher=(teacher.scale, teacher.soft_cap),
        chunk_size=chosen,
        batch_axes=tuple(batch_axes),
        own_axes=own_axes,
        scatter=_scatter(own_axes, student.weight.shape[0]),
        row_length=labels.shape[-1] if getattr(config.temperature, "median", "") == "row" else None,
    )


def _scatter(axes: tuple[str, ...], rows: int) -> str | None:
    """The axis that splits weights, for the head's gradient, if it divides its rows.

    By rows, as a part of them is one piece of memory; to the weight's own split it is another
    exchange, of a part only.
    """
    if WIDTH_AXIS not in axes:
        return None
    parts = size_along((WIDTH_AXIS,))
    return WIDTH_AXIS if parts > 1 and rows % parts == 0 else None


class _Operands(NamedTuple):
    """Everything a loss is computed from, as one tree."""

    student: Student
    teacher: Teacher | CachedTeacher | None
    labels: Array
    signals: Signals
    totals: Denominators


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(
    layout: Layout,
    student: Student,
    teacher: Teacher | CachedTeacher | None,
    labels: Array,
    signals: Signals,
    totals: Denominators,
) -> tuple[Array, LossReport]:
    operands = _Operands(student, teacher, labels, signals, totals)
    loss, report, _ = _on_mesh(layout, operands, gradient=False)
    return loss, report


def _loss_forward(layout: Layout, *operands):
    loss, report, gradient = _on_mesh(layout, _Operands(*operands), gradient=True)
    return (loss, report), gradient


def _loss_backward(layout: Layout, gradient: Student, cotangents: tuple[Array, LossReport]):
    return scaled(gradient, cotangents[0]), None, None, None, None


_loss.defvjp(_loss_forward, _loss_backward)


def _on_mesh(layout: Layout, operands: _Operands, *, gradient: bool):
    """Run the passes on each device's own tokens; other mesh axes stay with the compiler."""
    run = functools.partial(two_passes, layout, gradient=gradient)
    if not layout.own_axes:
        return run(*operands)
    batch: Any = P(layout.own_axes)
    whole: Any = P()
    student = Student(batch, whole, whole, whole)
    teacher = None
    if operands.teacher is not None:
        by_token = isinstance(operands.teacher, CachedTeacher)
        teacher = CachedTeacher(batch, batch, batch) if by_token else Teacher(batch, whole, whole)
    in_specs = _Operands(student, teacher, batch, whole, whole)
    report = LossReport(
        **{name: batch if name in PER_TOKEN else whole for name in LossReport._fields}
    )
    split: Any = P(layout.scatter)
    return jax.shard_map(
        lambda operands: run(*operands),
        in_specs=(in_specs,),
        out_specs=(whole, report, student._replace(weight=split) if gradient else None),
        axis_names=set(layout.own_axes),
        check_vma=False,
    )(operands)
