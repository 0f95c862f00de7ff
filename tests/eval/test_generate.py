import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from adakd_jax.config import GenerationConfig
from adakd_jax.eval.generate import generate
from adakd_jax.eval.prompts import check_prompts
from adakd_jax.hf.vocabulary import UnknownTokensError
from adakd_jax.models.config import DeltaNetSizes
from adakd_jax.models.decoder import abstract_decoder, random_params
from adakd_jax.models.output import logits
from adakd_jax.models.positions import TooLongError
from tests.eval.tiny import TINY

NEW = 20  # more than one segment
NEVER = (-1,) * 6  # always six end tokens: their number is a shape
SETTINGS = GenerationConfig(max_new_tokens=NEW, batch_size=4)


@pytest.fixture(scope="module")
def prompts():
    rng = np.random.default_rng(0)
    return [rng.integers(61, size=n).tolist() for n in (5, 1, 13, 9, 16, 2)]


@pytest.fixture(scope="module")
def greedy(tiny_model, prompts):
    return generate(*tiny_model, prompts, SETTINGS, eos_ids=NEVER, pad_id=0)


@pytest.fixture(scope="module")
def next_greedy(tiny_model):
    """The likeliest next token by the full forward pass, without a cache, one row at a time."""
    graphdef, params = tiny_model

    @jax.jit
    def scores(tokens, segments):
        model = nnx.merge(graphdef, params)
        positions = jnp.arange(tokens.shape[0], dtype=jnp.int32)
        return logits(model(tokens[None], positions[None], segments[None]), model.head())[0]

    def pick(tokens, penalty=1.0):
        padded = np.zeros(64, np.int32)
        padded[: len(tokens)] = tokens
        segments = (np.arange(64) < len(tokens)).astype(np.int32)
        row = np.array(scores(padded, segments)[len(tokens) - 1])
        held = sorted(set(tokens))
        row[held] = np.where(row[held] > 0, row[held] / penalty, row[held] * penalty)
        return int(np.argmax(row))

    return pick


def test_delta_nets_answer_as_the_full_forward_pass_does(prompts):
    config = dataclasses.replace(
        TINY,
        mixers=("delta", "attn"),
        delta_net=DeltaNetSizes(key_heads=2, value_heads=4, key_dim=4, value_dim=4, kernel=3),
    )
    graphdef, params = abstract_decoder(config)[0], random_params(config, jax.random.key(4))
    answers = generate(graphdef, params, prompts, SETTINGS, eos_ids=NEVER, pad_id=0)
    texts = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    width = max(map(len, texts))
    tokens = np.array([text + [0] * (width - len(text)) for text in texts], np.int32)
    segments = np.array([np.arange(width) < len(text) for text in texts], np.int32)
    positions = np.broadcast_to(np.arange(width, dtype=np.int32), tokens.shape)
    model = nnx.merge(graphdef, params)
    best = np.argmax(
        logits(model(*map(jnp.asarray, (tokens, positions, segments))), model.head()), -1
    )
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        assert len(answer) == NEW
        start = len(prompt) - 1
        assert best[row, start : start + NEW].tolist() == list(answer)


def test_greedy_is_the_argmax_of_the_full_forward_pass(prompts, greedy, next_greedy):
    for prompt, answer in zip(prompts, greedy, strict=True):
        expected = list(prompt)
        for _ in range(NEW):
            expected.append(next_greedy(expected))
        assert answer == expected[len(prompt) :]
    assert len({tuple(answer) for answer in greedy}) == len(prompts)


def test_repetition_penalty_is_over_prompt_and_answer(tiny_model, prompts, greedy, next_greedy):
    settings = SETTINGS.model_copy(update={"repetition_penalty": 1.7})
    answers = generate(*tiny_model, prompts, settings, eos_ids=NEVER, pad_id=0)
    for prompt, answer in zip(prompts, answers, strict=True):
        expected = list(prompt)
        for _ in range(NEW):
            expected.append(next_greedy(expected, 1.7))
        assert answer == expected[len(prompt) :]
    assert answers != greedy


def test_one_by_one_gives_the_same_tokens(tiny_model, prompts, greedy):
    for prompt, answer in zip(prompts, greedy, strict=True):
        assert generate(*tiny_model, [prompt], SETTINGS, eos_ids=NEVER, pad_id=7) == [answer]


def test_any_of_several_end_tokens_ends_an_answer_and_is_kept(tiny_model, prompts, greedy):
    ends = (greedy[0][3], greedy[4][17], *NEVER[2:])
    stopped = generate(*tiny_model, prompts, SETTINGS, eos_ids=ends, pad_id=0)
    for full, answer in zip(greedy, stopped, strict=True):
        first = next((i for i, token in enumerate(full) if token in ends), NEW - 1)
        assert answer == full[: first + 1]
    assert any(len(answer) < NEW for answer in stopped)


def test_stops_early_when_all_rows_have_ended(tiny_model, prompts, greedy):
    reports = []
    ends = tuple(answer[0] for answer in greedy)
    generate(*tiny_model, prompts, SETTINGS, eos_ids=ends, pad_id=0, progress=reports.append)
    assert [report.answered for report in reports] == [4, 6]
    assert reports[-1].tokens == 6


def test_progress_counts_answers_and_tokens(tiny_model, prompts):
    reports = []
    generate(*tiny_model, prompts, SETTINGS, eos_ids=NEVER, pad_id=0, progress=reports.append)
    assert [report.answered for report in reports] == [0, 0, 4, 4, 4, 6]
    assert [report.tokens for report in reports] == [4, 68, 80, 82, 114, 120]


def test_prompts_of_other_rounded_lengths_join_in(tiny_model, prompts, greedy, next_greedy):
    long = [*prompts[2], *prompts[3]]
    answers = generate(
        *tiny_model, [prompts[0], long, prompts[1]], SETTINGS, eos_ids=NEVER, pad_id=0
    )
    assert answers[0] == greedy[0] and answers[2] == greedy[1]
    assert answers[1][0] == next_greedy(long)
    assert answers[1][-1] == next_greedy([*long, *answers[1][:-1]])


def test_a_sample_depends_on_its_seed_and_id_only(tiny_model, prompts):
    settings = SETTINGS.model_copy(update={"temperature": 1.0})
    together = generate(*tiny_model, prompts, settings, eos_ids=NEVER, pad_id=0, seed=5)
    subset = generate(
        *tiny_model, prompts[2:4], settings, eos_ids=NEVER, pad_id=0, seed=5, sample_ids=(2, 3)
    )
    assert subset == together[2:4]
    wider = settings.model_copy(update={"batch_size": 6})
    assert generate(*tiny_model, prompts, wider, eos_ids=NEVER, pad_id=0, seed=5) == together
    assert generate(*tiny_model, prompts, settings, eos_ids=NEVER, pad_id=0, seed=6) != together
    same = generate(*tiny_model, prompts[:1] * 3, settings, eos_ids=NEVER, pad_id=0, seed=5)
    assert same[0] == together[0]
    assert len({tuple(answer) for answer in same}) == 3


def test_nothing_to_do(tiny_model):
    assert generate(*tiny_model, [], SETTINGS, eos_ids=NEVER, pad_id=0) == []


def test_an_empty_prompt_is_named(tiny_model):
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        generate(*tiny_model, [[1], []], SETTINGS, eos_ids=NEVER, pad_id=0)


def test_no_token_beyond_the_vocabulary_that_is_given_is_written(tiny_model, prompts, greedy):
    settings = SETTINGS.model_copy(update={"max_new_tokens": 4, "repetition_penalty": 1.1})
    largest = max(token for answer in greedy for token in answer[:1])
    answers = generate(*tiny_model, prompts, settings, eos_ids=NEVER, pad_id=0, vocabulary=largest)
    assert all(token < largest for answer in answers for token in answer)
    sampled = settings.model_copy(update={"temperature": 5.0})
    answers = generate(*tiny_model, prompts, sampled, eos_ids=NEVER, pad_id=0, vocabulary=3)
    assert {token for answer in answers for token in answer} == {0, 1, 2}


def test_prompts_that_cannot_be_answered_are_refused_before_any_is(tiny_model, prompts):
    with pytest.raises(UnknownTokensError, match=r"hold tokens .*: 61, 99; it has 61 embeddings"):
        generate(*tiny_model, [*prompts, [99, 61]], SETTINGS, eos_ids=NEVER, pad_id=0)
    learned = dataclasses.replace(TINY, ropes=(), max_positions=24)
    check_prompts(learned, [[1] * 4], NEW)
    with pytest.raises(
        TooLongError, match=r"prompt 1 of 5 tokens \+ max_new_tokens 20 is 25; valid"
    ):
        check_prompts(learned, [[1], [1] * 5], NEW)


def test_a_forward_pass_longer_than_learned_positions_is_refused():
    learned = dataclasses.replace(TINY, ropes=(), max_positions=8)
    graphdef, params = abstract_decoder(learned)

    def forward(params, tokens):
        return nnx.merge(graphdef, params)(tokens, tokens, tokens)

    for length in (8, 9):
        tokens = jax.ShapeDtypeStruct((1, length), jnp.int32)
        if length == 8:
            assert jax.eval_shape(forward, params, tokens).shape == (1, 8, 16)
            continue
        with pytest.raises(TooLongError, match="a row of tokens is 9; valid: at most 8"):
            jax.eval_shape(forward, params, tokens)
