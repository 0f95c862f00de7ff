"""The two passes of the chunked loss, on one device's tokens."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from adakd_jax.axes import IGNORE, CachedTeacher, size_along
from adakd_jax.distill.chunks import buffers_like, chunks_of, put, take
from adakd_jax.distill.objective import Terms, loss_report, loss_terms, weighted_loss
from adakd_jax.distill.policy import (
    Assignment,
    Survey,
    assign,
    needs_survey,
    scores_decide,
    scores_of,
    survey,
)
from adakd_jax.distill.signals import PER_TOKEN, Denominators, LossReport, Signals
from adakd_jax.distill.vocab_logits import Kept, Layout, Student, Teacher, Tokens, flat


class _Sums(NamedTuple):
    """What pass 2 adds up: numerators, and the gradients of weight, bias and learned."""

    kd: Array
    ce: Array
    weight: Any
    bias: Any
    learned: Any


def two_passes(
    layout: Layout,
    student: Student,
    teacher: Teacher | CachedTeacher | None,
    labels: Array,
    signals: Signals,
    totals: Denominators,
    *,
    gradient: bool,
) -> tuple[Array, LossReport, Student | None]:
    """Loss, report and, if asked for, the gradient of the loss with respect to `student`.

    The token arrays are this device's; the loss, the report's sums and the gradients of what is
    replicated are added up over `layout.batch_axes`.
    """
    config, shape = layout.config, labels.shape
    ids = labels.reshape(-1)
    mask = ids != IGNORE
    models = flat(student, ids.size), None if teacher is None else flat(teacher, ids.size)
    tokens = Tokens(layout, models[0], models[1], jnp.where(mask, ids, 0))

    seen = None
    if needs_survey(config):
        seen, kept = _pass_one(tokens, mask)
        tokens = tokens._replace(kept=kept)
    assigned = _assign(layout, seen, mask, signals)
    visited = (assigned.weights > 0) | (mask if config.has_ce or seen is None else False)
    inputs = _PassTwo(tokens, assigned, signals, totals, with_survey=seen is None)
    sums, per_token = _pass_two(inputs, visited, gradient)

    if seen is None:
        seen = per_token.seen
        assert seen is not None  # one of the passes surveys
        assigned = assigned._replace(scores=_scores(layout, seen.statistics, mask, signals))
    tau = jnp.where(assigned.weights > 0, per_token.temperature, assigned.temperature)
    assigned = assigned._replace(temperature=tau)
    report = loss_report(config, seen, assigned, mask, sums.kd, totals)
    report = _add_up(layout, report, shape)
    loss = weighted_loss(config, Terms(sums.kd, sums.ce, tau), totals, signals)
    loss = _psum(layout, loss)
    if not gradient:
        return loss, report, None
    grads = Student(
        jnp.reshape(per_token.hidden, student.hidden.shape), *_summed_gradients(layout, sums)
    )
    return loss, report, jax.tree.map(lambda g, x: g.astype(x.dtype), grads, student)


def _summed_gradients(layout: Layout, sums: _Sums) -> tuple[Any, Any, Any]:
    """Gradients of weight, bias and learned, added up over `layout.own_axes`; each device along
    `layout.scatter` gets its part of the weight's rows.
    """
    axes = tuple(axis for axis in layout.own_axes if size_along((axis,)) > 1)
    weight = sums.weight
    if not axes:
        return weight, sums.bias, sums.learned
    if layout.scatter is not None:
        weight = jax.lax.psum_scatter(weight, layout.scatter, scatter_dimension=0, tiled=True)
    left = tuple(axis for axis in axes if axis != layout.scatter)
    weight = jax.lax.psum(weight, left) if left else weight
    return weight, *jax.lax.psum((sums.bias, sums.learned), axes)


def _pass_one(tokens: Tokens, mask: Array) -> tuple[Survey, Kept | None]:
    """Survey all response tokens; zeros elsewhere. Keep the products if so configured."""
    config, size = tokens.layout.config, tokens.layout.chunk_size
    chunks = chunks_of(mask, size, tokens.layout.batch_axes)

    def look(index: Array) -> tuple[Array, tuple[Survey, Kept | None]]:
        places = chunks.places(index, size)
        products = tokens.products(places)
        student = tokens.student_logits(products.student, tokens.student.bias)
        teacher = tokens.teacher_logits(products.teacher)
        seen = survey(config, *tokens.compared(places, student, teacher))
        if config.keep_logits == "none":
            return places, (seen, None)
        kept: Kept = jax.tree.map(lambda x: x.astype(config.keep_logits), products)
        return places, (seen, kept)

    def visit(index: Array, buffers: Any) -> Any:
        return put(buffers, *look(index))

    rows = jax.eval_shape(look, jnp.int32(0))[1]
    return jax.lax.fori_loop(0, chunks.count, visit, buffers_like(rows, mask.size))


def _assign(layout: Layout, seen: Survey | None, mask: Array, signals: Signals) -> Assignment:
    """Rank the tokens of all devices, if anything depends on a rank; return this device's."""
    config = layout.config
    if seen is None and not scores_decide(config):
        return assign(config, None, None, mask, signals)
    statistics, entropy = jnp.zeros((mask.size, 0), jnp.float32), None
    if seen is not None:
        statistics, entropy = seen.statistics, seen.teacher_entropy
    decide = functools.partial(assign, config, signals=signals)
    return _globally(layout, decide, statistics, entropy, mask)


def _scores(layout: Layout, statistics: Array, mask: Array, signals: Signals) -> Array:
    """What the tokens of this device score beside those of all."""
    if not layout.config.has_kd:  # 0
        return scores_of(layout.config, statistics, mask, signals)
    decide = functools.partial(scores_of, layout.config, signals=signals)
    return _globally(layout, decide, statistics, mask)


def _globally(layout: Layout, decide: Callable[..., Any], *by_token: Array | None) -> Any:
    """What `decide` says, given the tokens of all devices, of this device's."""
    axes = layout.batch_axes
    if not axes:
        return decide(*by_token)
    decided = decide(*jax.lax.all_gather(by_token, axes, tiled=True))
    count = jax.tree.leaves(by_token)[0].shape[0]
    first = jax.lax.axis_index(axes) * count
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, count), decided)


class _PerToken(NamedTuple):
    """What pass 2 leaves at each token: gradient of the hidden state, temperature, survey."""

    hidden: Any
    temperature: Array
    seen: Survey | None


class _PassTwo(NamedTuple):
    """What pass 2 computes from; `with_survey` where no pass 1 has looked at the tokens."""

    tokens: Tokens
    assigned: Assignment
    signals: Signals
    totals: Denominators
    with_survey: bool


def _pass_two(inputs: _PassTwo, visited: Array, gradient: bool) -> tuple[_Sums, _PerToken]:
    """Loss and gradients over the visited tokens."""
    layout = inputs.tokens.layout
    chunks = chunks_of(visited, layout.chunk_size, layout.batch_axes)

    def compute(index: Array) -> tuple[Array, _Sums, _PerToken]:
        places = chunks.places(index, layout.chunk_size)
        return places, *_visit_chunk(inputs, places, gradient)

    def visit(index: Array, carry: tuple[_Sums, _PerToken]) -> tuple[_Sums, _PerToken]:
        places, sums, rows = compute(index)
        total = jax.tree.map(lambda a, b: a + b.astype(a.dtype), carry[0], sums)
        return total, put(carry[1], places, rows)

    _, sums, rows = jax.eval_shape(compute, jnp.int32(0))
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32)), sums
    )
    return jax.lax.fori_loop(0, chunks.count, visit, (zeros, buffers_like(rows, visited.size)))


def _visit_chunk(inputs: _PassTwo, places: Array, gradient: bool) -> tuple[_Sums, _PerToken]:
    """Numerators, gradients and temperatures of the tokens at `places`."""
    tokens, student = inputs.tokens, inputs.tokens.student
    products = tokens.products(places)
    value = _objective_of_product(inputs, places, tokens.teacher_logits(products.teacher))
    operands = products.student, student.bias, student.learned
    if not gradient:
        _, (terms, seen) = value(*operands)
        sums = _Sums(terms.kd, terms.ce, None, None, None)
        return sums, _PerToken(None, terms.temperature, seen)
    _, pull, (terms, seen) = jax.vjp(value, *operands, has_aux=True)
    to_product, to_bias, to_learned = pull(jnp.ones((), jnp.float32))
    hidden = take(student.hidden, places)
    narrow = to_product.astype(hidden.dtype)
    product: Any = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    to_weight = product("CV,CD->VD", narrow, hidden)
    to_hidden = product("CV,VD->CD", narrow, student.weight)
    sums = _Sums(terms.kd, terms.ce, to_weight, to_bias, to_learned)
    return sums, _PerToken(to_hidden.astype(hidden.dtype), terms.temperature, seen)


def _objective_of_product(
    inputs: _PassTwo, places: Array, teacher: Array | None
) -> Callable[..., Any]:
    """A chunk's loss as a function of what it is differentiated by: head product, bias, learned."""
    tokens, config = inputs.tokens, inputs.tokens.layout.config
    weights = take(inputs.assigned.weights, places)
    exists = places < tokens.labels.size
    tau = jnp.where(exists, take(inputs.assigned.temperature, places), 1.0)

    def value(product: Array, bias: Array | None, learned: Any):
        compared = tokens.compared(places, tokens.student_logits(product, bias), teacher)
        signals = inputs.signals._replace(learned=learned)
        terms = loss_terms(config, *compared[:3], exists, weights, tau, signals)
        seen = survey(config, *compared) if inputs.with_survey else None
        return weighted_loss(config, terms, inputs.totals, signals), (terms, seen)

    return value


def _psum(layout: Layout, tree: Any) -> Any:
    return jax.lax.psum(tree, layout.batch_axes) if layout.batch_axes else tree


def _add_up(layout: Layout, report: LossReport, shape: tuple[int, ...]) -> LossReport:
    """Sums over devices; numbers per token in the shape of the labels."""
    values = report._asdict()
    shaped = {name: values.pop(name).reshape(shape) for name in PER_TOKEN}
    return LossReport(**shaped, **_psum(layout, values))
