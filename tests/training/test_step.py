import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from adakd_jax.axes import IGNORE, TokenBatch
from adakd_jax.config import (
    AllTokens,
    DistillConfig,
    FixedTemperature,
    Latf,
    OptimizerConfig,
    TopRatio,
)
from adakd_jax.distill import Signals, denominators, distillation_loss
from adakd_jax.models import abstract_decoder, decoder_config, logits, random_params
from adakd_jax.models.config import DeltaNetSizes
from adakd_jax.training.state import decay_of_average
from adakd_jax.training.step import make_train_step
from tests.training.conftest import random_batch, tiny_config

PLAIN = DistillConfig(focus=AllTokens(), temperature=FixedTemperature())
SGD_LIKE = OptimizerConfig(learning_rate=1e-3, clip_norm=None, weight_decay=0.0)


def run(pair, distill, batches, optimizer=SGD_LIKE, steps=20):
    parts = pair.parts(distill, optimizer, steps)
    step, state = make_train_step(parts), pair.state(parts)
    history = []
    for batch in batches:
        state, metrics = step(state, pair.teacher_params, batch)
        history.append(jax.device_get(metrics))
    return state, history, step


def merged(batch: TokenBatch) -> TokenBatch:
    """The micro-batches of a step as one."""
    return jax.tree.map(lambda x: x.reshape((1, -1, x.shape[-1])), batch)


def test_loss_falls_and_the_step_compiles_once_while_the_ratio_moves(pair):
    distill = DistillConfig(focus=Latf(ema=0.5, tolerance=0.01, step_size=0.1))
    batch = random_batch(0)
    state, history, step = run(
        pair, distill, [batch] * 20, OptimizerConfig(learning_rate=2e-2, schedule="constant")
    )
    ratios = [float(m["keep_ratio"]) for m in history]
    assert history[-1]["reverse_kl"] < 0.7 * history[0]["reverse_kl"]
    assert ratios[0] == 1.0 and len(set(ratios)) > 3 and ratios[-1] < 0.9
    assert step._cache_size() == 1
    assert int(state.step) == 20 and int(state.skipped) == 0


def test_a_student_with_delta_nets_learns(pair):
    config = dataclasses.replace(
        decoder_config(tiny_config(2)),
        mixers=("delta", "attn"),
        delta_net=DeltaNetSizes(key_heads=1, value_heads=2, key_dim=8, value_dim=8, kernel=3),
        attention_gate=True,
    )
    own = pair._replace(
        student=abstract_decoder(config)[0], student_params=random_params(config, jax.random.key(5))
    )
    optimizer = OptimizerConfig(learning_rate=1e-2, schedule="constant")
    _, history, _ = run(own, PLAIN, [random_batch(0)] * 8, optimizer)
    assert history[-1]["reverse_kl"] < 0.8 * history[0]["reverse_kl"]


def test_ratio_of_a_step_is_the_controller_state_before_its_update(pair):
    distill = DistillConfig(focus=Latf(ema=0.0, tolerance=0.001, step_size=0.5))
    _, history, _ = run(
        pair, distill, [random_batch(0)] * 3, OptimizerConfig(learning_rate=2e-2), steps=3
    )
    assert [float(m["keep_ratio"]) for m in history] == [1.0, 1.0, 0.5]


def test_micro_batches_of_plain_distillation_equal_one_batch(pair):
    batch = random_batch(1, micro_batches=3)
    one, (first,), _ = run(pair, PLAIN, [merged(batch)])
    many, (second,), _ = run(pair, PLAIN, [batch])
    assert first["response_tokens"] == second["response_tokens"]
    np.testing.assert_allclose(second["loss"], first["loss"], rtol=1e-6)
    np.testing.assert_allclose(second["grad_norm"], first["grad_norm"], rtol=1e-5)
    for x, y in zip(jax.tree.leaves(one.opt_state), jax.tree.leaves(many.opt_state), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-7)


def test_micro_batches_of_adakd_equal_summed_numerators_and_denominators(pair):
    distill = DistillConfig(focus=TopRatio(ratio=0.5), ce_weight=0.3)
    batch = random_batch(2, micro_batches=3)
    signals = Signals(keep_ratio=jnp.float32(0.5), progress=jnp.float32(0))
    totals = denominators(distill, jnp.asarray(batch.labels), signals)

    def loss(params):
        total = 0.0
        for index in range(3):
            rows = jax.tree.map(lambda x, i=index: jnp.asarray(x[i]), batch)
            inputs = (rows.tokens, rows.positions, rows.segments)
            student = nnx.merge(pair.student, params)
            teacher = nnx.merge(pair.teacher, pair.teacher_params)
            total += distillation_loss(
                distill,
                logits(student(*inputs), student.head()),
                logits(teacher(*inputs), teacher.head()),
                rows.labels,
                signals,
                denominators=totals,
            )[0]
        return total

    expected, grads = jax.value_and_grad(loss)(pair.student_params)
    state, (metrics,), _ = run(pair, distill, [batch])
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(grads), rtol=1e-5)
    mu = optax.tree.get(state.opt_state, "mu")
    for x, y in zip(jax.tree.leaves(mu), jax.tree.leaves(grads), strict=True):
        np.testing.assert_allclose(x, 0.1 * y, rtol=1e-4, atol=1e-8)


def untouched(pair, parts, state) -> bool:
    fresh = pair.state(parts)
    pairs = zip(
        jax.tree.leaves((fresh.params, fresh.opt_state)),
        jax.tree.leaves((state.params, state.opt_state)),
        strict=True,
    )
    return all(bool(jnp.array_equal(x, y)) for x, y in pairs)


@pytest.mark.parametrize("cause", ["no response token", "teacher with NaN"])
def test_an_unusable_step_changes_nothing_but_the_counters(pair, cause):
    parts = pair.parts(DistillConfig(), OptimizerConfig(average_decay=0.9))
    step, state = make_train_step(parts), pair.state(parts)
    batch, teacher = random_batch(3), pair.teacher_params
    if cause == "no response token":
        batch = batch._replace(labels=np.full_like(batch.labels, IGNORE))
    else:
        teacher = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), teacher)
    state, metrics = step(state, teacher, batch)
    assert untouched(pair, parts, state)
    assert int(state.step) == 1 and int(state.skipped) == 1
    assert int(state.bad_streak) == (cause == "teacher with NaN")
    state, metrics = step(state, pair.teacher_params, random_batch(3))
    assert not untouched(pair, parts, state)
    assert int(state.skipped) == 1 and int(state.bad_streak) == 0
    assert float(metrics["accepted"]) == 1.0


def test_the_average_follows_the_weights(pair):
    """By min(decay, (1 + t)/(10 + t)) in update t; a skipped one does not count."""
    optimizer = SGD_LIKE.model_copy(update={"average_decay": 0.15})
    parts = pair.parts(PLAIN, optimizer)
    step, state = make_train_step(parts), pair.state(parts)
    empty = random_batch(4)._replace(labels=np.full_like(random_batch(4).labels, IGNORE))
    expected = jax.tree.map(np.array, state.average)
    for batch, decay in ((random_batch(4), 0.1), (empty, None), (random_batch(4), 0.15)):
        state, _ = step(state, pair.teaching(parts), batch)
        if decay is not None:
            expected = jax.tree.map(
                lambda old, new, decay=decay: decay * old + (1 - decay) * np.array(new),
                expected,
                state.params,
            )
    for found, wanted in zip(*map(jax.tree.leaves, (state.average, expected)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)


def test_the_average_of_a_short_run_leaves_the_untrained_weights_behind():
    """After 20 updates a ten-millionth of it is the start; at .999 all along it would be 98%."""
    start, later = jnp.float32(1.0), jnp.float32(0.0)
    average = start
    for update in range(20):
        decay = decay_of_average(0.999, jnp.int32(update))
        average = decay * average + (1.0 - decay) * later
    assert 0 < float(average) < 1.1e-7
    assert float(decay_of_average(0.999, jnp.int32(10_000))) == pytest.approx(0.999)


def test_padding_and_documents_beside_a_token_do_not_reach_it(pair):
    batch = random_batch(5)
    noise = batch._replace(tokens=np.where(batch.segments == 0, 7, batch.tokens))
    _, (clean,), _ = run(pair, DistillConfig(), [batch])
    _, (noisy,), _ = run(pair, DistillConfig(), [noise])
    assert clean["loss"] == noisy["loss"] and clean["grad_norm"] == noisy["grad_norm"]


def test_reported_counts_are_those_of_the_batch(pair):
    batch = random_batch(6, micro_batches=2)
    _, (metrics,), _ = run(pair, DistillConfig(focus=TopRatio(ratio=0.5)), [batch])
    responses = [int((rows != IGNORE).sum()) for rows in batch.labels]
    assert metrics["tokens"] == (batch.segments > 0).sum()
    assert metrics["response_tokens"] == sum(responses)
    assert metrics["selected_tokens"] == sum(n // 2 for n in responses)
    assert metrics["learning_rate"] == pytest.approx(SGD_LIKE.learning_rate)
    scores = [metrics[f"score_q{share}"] for share in (10, 25, 50, 75, 90)]
    assert scores[0] >= 0 and scores == sorted(scores) and scores[-1] <= 1
    assert np.exp(-0.5) <= metrics["temperature_q10"] <= metrics["temperature_q90"] <= np.exp(0.5)
