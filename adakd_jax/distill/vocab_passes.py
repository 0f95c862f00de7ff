"""The two passes of the chunked loss, on one device's tokens.

Where the gradient flows through the temperatures, there is one between them: a score moves the
temperatures of other tokens too, through the median, so that the slopes of all of them must be
known before any gradient.
"""

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
    needs_survey,
    statistics_of,
    survey,
    temperature_has_gradient,
)
from adakd_jax.distill.signals import PER_TOKEN, Denominators, LossReport, Signals
from adakd_jax.distill.vocab_logits import Kept, Layout, Student, Teacher, Tokens, flat
from adakd_jax.distill.vocab_policy import assign_globally, pulled_to_statistics, scores_globally


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
    assigned = assign_globally(layout, seen, mask, signals)
    visited = (assigned.weights > 0) | (mask if config.has_ce or seen is None else False)
    inputs = _PassTwo(tokens, assigned, signals, totals, with_survey=seen is None)
    if gradient and seen is not None and temperature_has_gradient(config):
        pulled = _through_temperatures(inputs, seen, mask)
        inputs = inputs._replace(to_statistics=pulled)
        visited = visited | jnp.any(pulled != 0.0, axis=-1)  # a token not kept may set the scale
    sums, per_token = _pass_two(inputs, visited, gradient)

    if seen is None:
        seen = per_token.seen
        assert seen is not None  # one of the passes surveys
        assigned = assigned._replace(scores=scores_globally(layout, seen.statistics, mask, signals))
    tau = jnp.where(assigned.weights > 0, per_token.temperature, assigned.temperature)
    assigned = assigned._replace(temperature=tau)
    report = loss_report(config, seen, assigned, mask, sums.kd, totals)
    if layout.gradient_norms:
        report = report._replace(gradient_norms=_norms(per_token, mask, totals))
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


class _PerToken(NamedTuple):
    """What pass 2 leaves at each token: gradient of the hidden state, temperature, survey, norm of
    the gradient of the logits if it is asked for.
    """

    hidden: Any
    temperature: Array
    seen: Survey | None
    norm: Array | None = None


class _PassTwo(NamedTuple):
    """What pass 2 computes from; `with_survey` where no pass 1 has looked at the tokens;
    `to_statistics` is the gradient of the statistics through the temperatures.
    """

    tokens: Tokens
    assigned: Assignment
    signals: Signals
    totals: Denominators
    with_survey: bool
    to_statistics: Array | None = None


def _through_temperatures(inputs: _PassTwo, seen: Survey, mask: Array) -> Array:
    """Gradient of the loss with respect to the statistics [n, S] that scores are made of."""
    tokens, layout = inputs.tokens, inputs.tokens.layout
    chunks = chunks_of(inputs.assigned.weights > 0, layout.chunk_size, layout.batch_axes)

    def visit(index: Array, slopes: Array) -> Array:
        places = chunks.places(index, layout.chunk_size)
        products = tokens.products(places)
        value = _objective_of_product(inputs, places, tokens.teacher_logits(products.teacher))
        student = products.student, tokens.student.bias, tokens.student.learned
        tau = take(inputs.assigned.temperature, places)
        return put(slopes, places, jax.grad(lambda tau: value(*student, tau)[0])(tau))

    slopes = jax.lax.fori_loop(0, chunks.count, visit, jnp.zeros_like(inputs.assigned.temperature))

    return pulled_to_statistics(layout, seen, mask, slopes, inputs.signals)


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
    norm = jnp.linalg.norm(to_product, axis=-1) if tokens.layout.gradient_norms else None
    return sums, _PerToken(to_hidden.astype(hidden.dtype), terms.temperature, seen, norm)


def _norms(per_token: _PerToken, mask: Array, totals: Denominators) -> Array:
    """Norm of each token's gradient by itself, as `LossReport` has it; NaN without gradients."""
    if per_token.norm is None:
        return jnp.where(mask, jnp.nan, 0.0)
    return per_token.norm * totals.kd


def _objective_of_product(
    inputs: _PassTwo, places: Array, teacher: Array | None
) -> Callable[..., Any]:
    """A chunk's loss as a function of what it is differentiated by: head product, bias, learned,
    temperature.
    """
    tokens, config = inputs.tokens, inputs.tokens.layout.config
    weights = take(inputs.assigned.weights, places)
    exists = places < tokens.labels.size
    assigned = take(inputs.assigned.temperature, places)

    def value(product: Array, bias: Array | None, learned: Any, tau: Array = assigned):
        tau = jnp.where(exists, tau, 1.0)
        compared = tokens.compared(places, tokens.student_logits(product, bias), teacher)
        signals = inputs.signals._replace(learned=learned)
        terms = loss_terms(config, *compared[:3], exists, weights, tau, signals)
        seen = survey(config, *compared) if inputs.with_survey else None
        loss = weighted_loss(config, terms, inputs.totals, signals)
        if inputs.to_statistics is not None:  # the part of the gradient that τ has, to first order
            pulled = take(inputs.to_statistics, places)
            loss = loss + jnp.sum(pulled * statistics_of(config, *compared))
        return loss, (terms, seen)

    return value


def _psum(layout: Layout, tree: Any) -> Any:
    return jax.lax.psum(tree, layout.batch_axes) if layout.batch_axes else tree


def _add_up(layout: Layout, report: LossReport, shape: tuple[int, ...]) -> LossReport:
    """Sums over devices; numbers per token in the shape of the labels."""
    values = report._asdict()
    by_token = {name: values.pop(name) for name in PER_TOKEN}
    shaped = jax.tree.map(lambda x: x.reshape(shape), by_token)
    return LossReport(**shaped, **_psum(layout, values))
