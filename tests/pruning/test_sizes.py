"""From what settings ask for to the sizes and the config.json of a student."""

import functools

import numpy as np
import pytest

from adakd_jax.config.models import StudentPruned
from adakd_jax.hf.student_config import can_keep, chosen_config
from adakd_jax.models.families import decoder_config
from adakd_jax.models.size import parameter_count
from adakd_jax.pruning.choice import Choice, most_influential
from adakd_jax.pruning.shape import evenly, planned_choice, pruned_sizes
from adakd_jax.pruning.sizes import Sizes, asked_sizes, unit_of, with_sizes
from tests.models.family_cases import CASES, ONE_EACH

SMOLLM2 = dict(
    model_type="llama",
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    max_position_embeddings=2048,
    tie_word_embeddings=True,
)
# What has no key for the width of a head.
_FIXED_HEADS = ("gpt2", "gpt_neox", "opt")


@pytest.mark.parametrize(
    ("text", "number"), [("80M", 80_000_000), ("1.5b", 1_500_000_000), (7, 7), ("250k", 250_000)]
)
def test_a_number_of_parameters(text, number):
    assert StudentPruned(parameters=text).parameters == number


@pytest.mark.parametrize("size", ["24", 24, [24]])
def test_a_number_or_a_share(size):
    assert StudentPruned(layers=size).layers == 24
    assert StudentPruned(layers=".5").layers == 0.5


def test_shares_are_rounded_to_what_hardware_likes():
    config = decoder_config(SMOLLM2)
    found = asked_sizes(StudentPruned(layers=0.79, ffw=0.73, width=0.84), config)
    assert found == Sizes(layers=24, ffw=1152, groups=3, width=504, experts=0)
    assert asked_sizes(StudentPruned(ffw=1000), config).ffw == 1000
    assert asked_sizes(StudentPruned(heads=0.6), config).groups == 2
    # Widths of Llama are multiples of the number of heads; 4096 of 32 heads by 128 then.
    assert [unit_of(1536), unit_of(576, 9), unit_of(4096, 32), unit_of(48)] == [128, 72, 128, 4]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (dict(layers=31), "student.layers is 31, but the teacher has 30; valid: 1 to 30"),
        (dict(ffw=2000), "student.ffw is 2000, but the teacher has 1536"),
        (dict(heads=4), "student.heads is 4, but 3 query heads share a key-value head"),
        (dict(experts=2), "student.experts is given, but the teacher has none"),
    ],
    ids=str,
)
def test_sizes_that_the_teacher_has_not(asked, told):
    with pytest.raises(ValueError, match=told):
        asked_sizes(StudentPruned(**asked), decoder_config(SMOLLM2))


def test_as_many_experts_as_a_token_has():
    config = decoder_config(CASES["qwen3_moe"])
    with pytest.raises(ValueError, match=r"a token has 3 of them; valid: 3 to 6"):
        asked_sizes(StudentPruned(experts=2), config)


@pytest.mark.parametrize("family", ONE_EACH)
def test_every_family_can_say_other_widths(family):
    hf_config = CASES[ONE_EACH[family]]
    config = decoder_config(hf_config)
    if config.wide is not None:
        told = r"student.heads is 0.5, but a gemma4_text model has heads of two sizes"
        with pytest.raises(ValueError, match=told):
            asked_sizes(StudentPruned(heads=0.5), config)
        return
    sizes = asked_sizes(StudentPruned(ffw=0.5, heads=0.5, width=0.5), config)
    found = decoder_config(with_sizes(hf_config, sizes))
    assert (found.ffw_dim, found.num_kv_heads, found.embed_dim) == sizes[1:4]
    assert found.head_dim == config.head_dim and found.num_layers == config.num_layers
    if family in _FIXED_HEADS:
        with pytest.raises(ValueError, match=r"by the same share"):
            with_sizes(hf_config, asked_sizes(StudentPruned(width=0.5), config))


def test_what_transformers_refuses_is_told():
    with pytest.raises(ValueError, match=r"transformers refuses a llama .* \(512\) is not a multi"):
        with_sizes(SMOLLM2, Sizes(30, 1536, 3, 512, 0))


@pytest.mark.parametrize("wanted", ["120M", "100M", "80M", "50M"])
def test_a_number_of_parameters_makes_sizes(wanted):
    source = StudentPruned(parameters=wanted)
    sizes = pruned_sizes(source, SMOLLM2)
    hf_config = chosen_config(SMOLLM2, evenly(SMOLLM2, sizes))
    count = parameter_count(decoder_config(hf_config))
    assert abs(count - source.parameters) < 0.03 * source.parameters
    assert sizes.layers >= 15 and sizes.ffw % 128 == 0


def test_what_is_given_beside_it_stays():
    sizes = pruned_sizes(StudentPruned(parameters="100M", layers=28), SMOLLM2)
    assert sizes.layers == 28 and sizes.width == 576
    with pytest.raises(ValueError, match=r"student.parameters is 1,000,000, but .* at nearest"):
        pruned_sizes(StudentPruned(parameters="1M", width=576), SMOLLM2)


def test_a_plan_knows_the_shape_before_anything_is_measured():
    choice = planned_choice(StudentPruned(layers=4, ffw=0.5), SMOLLM2)
    assert choice.layers == (0, 10, 19, 29) and choice.neurons.shape == (4, 768)
    moe = planned_choice(StudentPruned(experts=4, ffw=0.5), CASES["qwen3_moe"])
    assert moe.experts.shape == (3, 4) and moe.neurons.shape == (3, 4, 10)


def test_layers_that_others_read_are_kept():
    """In Gemma 4, the last layers read keys and values of an earlier one of their kind."""
    hf_config = CASES["gemma4_text"]
    layers = planned_choice(StudentPruned(layers=4), hf_config).layers
    assert decoder_config(chosen_config(hf_config, Choice(layers))).num_layers == 4
    count = len(hf_config["layer_types"])
    influence = np.arange(float(count))[::-1]  # the last would go first
    kept = most_influential(influence, 4, functools.partial(can_keep, hf_config))
    assert can_keep(hf_config, kept) and len(kept) == 4
    with pytest.raises(ValueError, match=r"no fewer than \d make a model of its family"):
        most_influential(influence, 1, lambda layers: len(layers) > 2)
