"""What is lost when a teacher is cut to k tokens and the mass of the others, measured."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adakd_jax.axes import IGNORE
from adakd_jax.config import RunConfig
from adakd_jax.data.assemble import assemble_rows
from adakd_jax.data.fill import packed_rows
from adakd_jax.data.progress import track
from adakd_jax.data.tokenize import Example
from adakd_jax.distill import SCORES, idts_temperature, select_top_ratio
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.teacher_cache.measure import TAILS, WHOLE, Cuts, loss_errors, measured_tokens
from adakd_jax.teacher_cache.records import Form

KS = (16, 64, 128)
KEPT = 0.5  # share of the tokens that are kept when choices are compared


class RuleError(NamedTuple):
    """How far a score or divergence of buckets is from that of whole distributions.

    Attributes:
        whole: its mean over tokens, of whole distributions.
        error: by k, the mean absolute error by the mean absolute value.
        overlap: by k, of a score: the share of the hardest half that is in the hardest half still.
    """

    whole: float
    error: dict[int, float]
    overlap: dict[int, float]


class CutError(NamedTuple):
    """What a cache of some k loses.

    Attributes:
        student_tail: mean probability that the student has outside of the k tokens.
        teacher_tail: the teacher's.
        forward_kl: KL(p‖q) − that of buckets, nats per token.
        reverse_kl: KL(q‖p) − that of buckets.
        temperature: mean |Δτ| of IDTS.
        loss: by kind of `cached_tail`, relative error of the settings' own loss.
        gradient: likewise, ‖Δ‖/‖·‖ of its gradient by the student's hidden states.
    """

    student_tail: float
    teacher_tail: float
    forward_kl: float
    reverse_kl: float
    temperature: float
    loss: dict[str, float]
    gradient: dict[str, float]


class Lost(NamedTuple):
    """Everything that was measured of a sample.

    Attributes:
        tokens: response tokens.
        cuts: by k.
        scores: by name.
        divergences: by name, at temperature 1.
    """

    tokens: int
    cuts: dict[int, CutError]
    scores: dict[str, RuleError]
    divergences: dict[str, RuleError]


def what_is_lost(
    config: RunConfig,
    form: Form,
    student: Pretrained,
    teacher: Pretrained,
    examples: Sequence[Example],
) -> Lost:
    """Compares whole distributions with what caches of several sizes keep, rounded as this one is.

    Args:
        config: its `distill` is the loss that is compared.
        form: of the cache; its k is measured too.
        student: as training starts from it.
        teacher: whose distributions are cut.
        examples: the sample.
    """
    ks = tuple(sorted({k for k in (*KS, form.k) if k < form.vocabulary}))
    cuts = Cuts(ks, form.vocabulary, form.dtype, (student.graphdef, teacher.graphdef))
    params = student.params, teacher.params
    rows = packed_rows(np.array([len(e.tokens) for e in examples]), config.data.max_length)
    found, losses = [], []
    for row in track(rows, "measuring what the cache loses", len(rows)):
        batch = assemble_rows(examples, [row], config.data.max_length)
        mask = np.asarray(batch.labels).reshape(-1) != IGNORE
        numbers = jax.device_get(measured_tokens(cuts, params, batch))
        found.append(jax.tree.map(lambda x, mask=mask: x[mask], numbers))
        losses.append(np.array(loss_errors(cuts, config.distill, params, batch)) * mask.sum())
    numbers = jax.tree.map(lambda *each: np.concatenate(each), *found)
    tokens = len(numbers[WHOLE].tails)
    by_k = (np.sum(losses, axis=0) / tokens).reshape(len(ks), len(TAILS), 2)
    scores = {k: _scores(numbers[k].scores) for k in numbers}
    divergences = {k: numbers[k].divergences for k in numbers}
    return Lost(
        tokens,
        {k: _cut_error(k, numbers, scores, by_k[i]) for i, k in enumerate(ks)},
        {name: _rule_error(name, scores, choose=True) for name in scores[WHOLE]},
        {name: _rule_error(name, divergences) for name in divergences[WHOLE]},
    )


def _scores(statistics: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Scores [n] from the numbers [n, S] that each is made of."""
    return {
        name: np.asarray(
            SCORES[name].finish(jnp.asarray(values), jnp.ones(len(values), bool), None)
        )
        for name, values in statistics.items()
    }


def _cut_error(k: int, numbers: dict, scores: dict, loss: np.ndarray) -> CutError:
    tails = numbers[k].tails.mean(axis=0)
    lost = {
        name: float(np.mean(numbers[WHOLE].divergences[name] - numbers[k].divergences[name]))
        for name in ("forward_kl", "reverse_kl")
    }
    taus = [np.asarray(_idts(scores[each]["hellinger"])) for each in (WHOLE, k)]
    return CutError(
        float(tails[0]),
        float(tails[1]),
        lost["forward_kl"],
        lost["reverse_kl"],
        float(np.abs(taus[0] - taus[1]).mean()),
        {tail: float(loss[place, 0]) for place, tail in enumerate(TAILS)},
        {tail: float(loss[place, 1]) for place, tail in enumerate(TAILS)},
    )


def _idts(scores: np.ndarray) -> jax.Array:
    return idts_temperature(jnp.asarray(scores), jnp.ones(len(scores), bool))


def _rule_error(name: str, values: dict, choose: bool = False) -> RuleError:
    whole = values[WHOLE][name]
    scale = max(float(np.abs(whole).mean()), 1e-12)
    ks = [k for k in values if k != WHOLE]
    error = {k: float(np.abs(values[k][name] - whole).mean()) / scale for k in ks}
    overlap = {k: _overlap(whole, values[k][name]) for k in ks} if choose else {}
    return RuleError(float(whole.mean()), error, overlap)


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Share of the hardest half by one score that is in the hardest half by the other."""
    everything = jnp.ones(len(one), bool)
    first, second = (
        np.asarray(select_top_ratio(jnp.asarray(x), everything, KEPT)) for x in (one, other)
    )
    return float((first & second).sum() / first.sum())
