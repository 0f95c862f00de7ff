"""Logits of a slice of tokens, from hidden states and output embeddings."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from adakd_jax.axes import CachedTeacher
from adakd_jax.config.distill import DistillConfig
from adakd_jax.distill.buckets import Compared, compared_with
from adakd_jax.distill.chunks import take


class Layout(NamedTuple):
    """The static half of a chunked loss.

    Attributes:
        config: the loss.
        size: V, tokens that both vocabularies have.
        student: the student's logit scale and soft cap.
        teacher: the teacher's.
        chunk_size: C.
        batch_axes: mesh axes that shard the tokens.
        own_axes: those of them that are this loss's to sum gradients over; over the others, which
            are manual where it is called, its caller does.
        scatter: of `own_axes` the one that the head's gradient is left split over, along V.
        row_length: tokens of a row, if it matters which row a token is in.
        gradient_norms: whether each token's gradient is measured.
    """

    config: DistillConfig
    size: int
    student: tuple[float, float | None]
    teacher: tuple[float, float | None]
    chunk_size: int
    batch_axes: tuple[str, ...]
    own_axes: tuple[str, ...] = ()
    scatter: str | None = None
    row_length: int | None = None
    gradient_norms: bool = False


class Student(NamedTuple):
    """What the gradient is taken of: hidden states [..., D], head weight [V, D] and bias [V], and
    what is learned with them.
    """

    hidden: Any
    weight: Any
    bias: Any
    learned: Any


class Teacher(NamedTuple):
    """Hidden states [..., D], head weight [V, D] and bias [V]."""

    hidden: Any
    weight: Any
    bias: Any


class Kept(NamedTuple):
    """Head products [n, V] of student and teacher that pass 1 leaves to pass 2."""

    student: Array
    teacher: Array | None


def flat(model: Any, tokens: int) -> Any:
    """A model's hidden states [n, D], and its weight in their dtype, converted once; of a cached
    teacher its arrays by token.
    """
    if isinstance(model, CachedTeacher):
        ids, log_probs, tail = model
        k = ids.shape[-1]
        return CachedTeacher(
            ids.reshape(tokens, k), log_probs.reshape(tokens, k), tail.reshape(tokens)
        )
    weight = model.weight.astype(model.hidden.dtype)
    return model._replace(hidden=model.hidden.reshape(tokens, -1), weight=weight)


class Tokens(NamedTuple):
    """One device's tokens, flat.

    Attributes:
        layout: the loss.
        student: hidden states [n, D] and head.
        teacher: likewise, or what a cache holds of it; None if it has no say.
        labels: [n], 0 where there is none.
        kept: products that need not be computed again, or None.
    """

    layout: Layout
    student: Student
    teacher: Teacher | CachedTeacher | None
    labels: Array
    kept: Kept | None = None

    def products(self, places: Array) -> Kept:
        """Head products [C, V] at `places`, float32, without gradient; zeros where no token is."""
        if self.kept is not None:
            rows: Kept = jax.tree.map(lambda x: take(x, places).astype(jnp.float32), self.kept)
            return rows
        return jax.lax.stop_gradient(
            Kept(
                _product(self.student, places, self.labels.size),
                _product(self.teacher, places, self.labels.size)
                if isinstance(self.teacher, Teacher)
                else None,
            )
        )

    def student_logits(self, product: Array, bias: Array | None) -> Array:
        """Logits [C, V] from the product of hidden states and weight."""
        return _shaped(product, bias, self.layout.size, *self.layout.student)

    def teacher_logits(self, product: Array | None) -> Array | None:
        """Logits [C, V], without gradient; None without a teacher, or with a cached one."""
        if not isinstance(self.teacher, Teacher) or product is None:
            return None
        bias = self.teacher.bias
        logits = _shaped(product, bias, self.layout.size, *self.layout.teacher)
        return jax.lax.stop_gradient(logits)

    def compared(self, places: Array, student: Array, teacher: Array | None) -> Compared:
        """What is compared at `places`, given the logits [C, V]."""
        labels = take(self.labels, places)
        if isinstance(self.teacher, CachedTeacher):
            cached = CachedTeacher(*(take(x, places) for x in self.teacher))
            return compared_with(self.layout.config.cached_tail, student, cached, labels)
        return Compared(student, teacher, labels)


def _product(model: Student | Teacher, places: Array, tokens: int) -> Array:
    product = jnp.einsum(
        "CD,VD->CV", take(model.hidden, places), model.weight, preferred_element_type=jnp.float32
    )
    # The rows are zero already. But on CPU, XLA would fuse the reductions that follow into the
    # product and run it at a third of its speed; it does not fuse across a select.
    return jnp.where((places < tokens)[:, None], product, 0.0)


def _shaped(
    product: Array, bias: Array | None, size: int, scale: float, soft_cap: float | None
) -> Array:
    """The rest of an output embedding: see `adakd_jax.axes.Head`."""
    scores = product[:, :size]
    if bias is not None:
        scores = scores + bias[None, :size].astype(scores.dtype)
    if scale != 1.0:
        scores = scores * scale
    return scores if soft_cap is None else soft_cap * jnp.tanh(scores / soft_cap)
