"""Rotary positions are those that transformers reads from the same keys."""

import functools
import itertools
import json

import pytest
from transformers import AutoConfig

from adakd_jax.models import Rope, decoder_config
from adakd_jax.models.families import family_of
from adakd_jax.models.rope_keys import RopeKeys, rope_remark, without_contradictions

SIZES = dict(
    vocab_size=11,
    hidden_size=32,
    intermediate_size=12,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
LINEAR = dict(rope_type="linear", factor=4.0)
YARN = dict(rope_type="yarn", factor=4.0, attention_factor=1.1)
PLAIN = dict(rope_type="default", rope_theta=5e5)
FLAT = (
    None,
    {},
    PLAIN,
    LINEAR,
    LINEAR | dict(rope_theta=7.0),
    dict(type="linear", factor=3.0),
    LLAMA3 | dict(rope_theta=5e5),
    LLAMA3 | dict(original_max_position_embeddings=32),
    YARN,
    YARN | dict(original_max_position_embeddings=32, beta_slow=2.0),
    dict(rope_type="dynamic", factor=2.0),
)
NESTED = tuple(
    dict(full_attention=whole, sliding_attention=local)
    for whole in (None, PLAIN, LINEAR, LLAMA3)
    for local in (None, dict(rope_type="default", rope_theta=99.0), LINEAR)
)


BY_LAYER_TYPE = ("gemma3_text", "olmo3")


def as_rope(read):
    """A set of transformers' rope_parameters as ours."""
    kind, theta = read["rope_type"], read["rope_theta"]
    if kind == "default":
        return Rope(theta)
    if kind == "linear":
        return Rope(theta, kind, read["factor"])
    if kind == "dynamic":
        positions = SIZES["max_position_embeddings"]
        return Rope(theta, kind, read["factor"], original_positions=positions)
    if kind == "yarn":
        return Rope(
            theta,
            kind,
            read["factor"],
            original_positions=read.get("original_max_position_embeddings", 64),
            beta_slow=read.get("beta_slow", 1.0),
            attention_factor=read["attention_factor"],
        )
    bounds = (read["low_freq_factor"], read["high_freq_factor"])
    original = read.get("original_max_position_embeddings", SIZES["max_position_embeddings"])
    return Rope(theta, kind, read["factor"], *bounds, original)


def in_transformers(hf):
    """What transformers reads, or None where it does not read it."""
    try:
        read = AutoConfig.for_model(**json.loads(json.dumps(hf))).rope_parameters
    except (AttributeError, KeyError):
        return None
    if hf["model_type"] in BY_LAYER_TYPE:
        return tuple(as_rope(read[kind]) for kind in ("full_attention", "sliding_attention"))
    return (as_rope(read),)


@pytest.mark.parametrize(
    "family", ["llama", "qwen3", "gemma2", "gemma3_text", "smollm3", "olmo3", "glm4"]
)
def test_every_combination_of_keys_is_read_as_transformers_reads_it(family):
    sets = (*FLAT, *NESTED) if family in BY_LAYER_TYPE else FLAT
    thetas = (None, 3e4)
    compared = 0
    for parameters, scaling, theta in itertools.product(sets, FLAT, thetas):
        hf = dict(SIZES, model_type=family, rope_parameters=parameters, rope_scaling=scaling)
        if family == "smollm3":
            hf["no_rope_layers"] = [1] * 6
        if theta is not None:
            hf |= dict(rope_theta=theta, rope_local_base_freq=50.0)
        expected = in_transformers(hf)
        if expected is None:
            continue
        compared += 1
        config = decoder_config(hf)
        assert config.ropes == expected, hf
        keys = family_of(hf).rope
        settled = without_contradictions(hf, keys)
        assert decoder_config(settled) == config, hf
        assert rope_remark(settled, keys) is None, hf
    assert compared >= 100


@pytest.mark.parametrize(
    ("keys", "lost"),
    [
        (dict(rope_scaling=LINEAR, rope_parameters=PLAIN), "rope_parameters"),
        (dict(rope_theta=1e4, rope_parameters=PLAIN), "rope_theta"),
        (dict(rope_theta=5e5, rope_parameters=PLAIN), None),
        (dict(rope_theta=7.0, rope_scaling=LINEAR), None),
        (
            dict(rope_theta=7.0, rope_scaling=LINEAR, rope_parameters=LINEAR | dict(rope_theta=7)),
            None,
        ),
    ],
)
def test_a_contradiction_is_said_and_agreement_is_not(keys, lost):
    remark = rope_remark(dict(SIZES, model_type="llama", **keys), RopeKeys())
    assert remark is None if lost is None else remark and f"not all of {lost}" in remark


def test_of_gemma_3_a_set_that_is_not_by_layer_type_is_said_to_be_unread():
    hf = dict(SIZES, model_type="gemma3_text")
    remark = functools.partial(rope_remark, keys=family_of(hf).rope)
    assert "not all of rope_parameters" in str(remark(hf | dict(rope_parameters=LINEAR)))
    by_type = dict(full_attention=PLAIN, sliding_attention=None)
    assert remark(hf | dict(rope_parameters=by_type)) is None
    changed = remark(hf | dict(rope_parameters=by_type, rope_scaling=LLAMA3))
    assert "not all of rope_parameters" in str(changed)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            dict(rope_parameters=dict(full_attention=PLAIN)),
            "by layer type .*not supported for llama",
        ),
        (dict(rope_scaling="linear"), "rope_scaling is 'linear', valid: an object"),
        (dict(rope_scaling=dict(type="linear", factor="4")), "factor is '4', valid: a number"),
        (dict(rope_theta="1e4"), "rope_theta is '1e4', valid: a number"),
        (dict(rope_scaling=LINEAR, partial_rotary_factor=0.5), "partial_rotary_factor 0.5"),
        (dict(hidden_size="32"), "hidden_size is '32', valid: a whole number above 0"),
        (dict(num_attention_heads=0), "num_attention_heads is 0, valid"),
        (dict(tie_word_embeddings="false"), "tie_word_embeddings is 'false', valid: true or false"),
        (dict(layer_types="full_attention"), "layer_types is 'full_attention', valid: a list"),
        (dict(model_type=["llama"]), r"model_type \['llama'\] is not supported"),
    ],
)
def test_values_of_another_kind_are_named(keys, message):
    with pytest.raises(ValueError, match=message):
        decoder_config(dict(SIZES, model_type="llama") | keys)
