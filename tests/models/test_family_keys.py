"""Families in the keys of transformers 4 and 5, and what they refuse."""

import pytest

from adakd_jax.models import decoder_config
from tests.models.test_families import SIZES

FACTORS = dict(short_factor=[1.0, 1.5], long_factor=[2.0, 3.0])
YARN = dict(rope_type="yarn", factor=8.0, original_max_position_embeddings=8, attention_factor=1.2)
OPT = dict(
    vocab_size=11,
    hidden_size=32,
    ffn_dim=12,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=64,
)


@pytest.mark.parametrize(
    ("family", "older", "newer"),
    [
        (
            "phi3",
            dict(
                partial_rotary_factor=0.5,
                rope_theta=7.0,
                original_max_position_embeddings=16,
                rope_scaling=FACTORS | dict(type="su"),
            ),
            dict(
                original_max_position_embeddings=16,
                rope_parameters=FACTORS
                | dict(rope_type="longrope", rope_theta=7.0, partial_rotary_factor=0.5),
            ),
        ),
        (
            "glm4",
            dict(rope_theta=7.0, head_dim=8),
            dict(rope_parameters=dict(rope_theta=7.0, partial_rotary_factor=0.5), head_dim=8),
        ),
        (
            "gpt_neox",
            dict(rotary_pct=0.5, rotary_emb_base=7),
            dict(rope_parameters=dict(rope_theta=7.0, partial_rotary_factor=0.5)),
        ),
        (
            "olmo3",
            dict(rope_theta=5e5, rope_scaling=YARN),
            dict(
                rope_parameters=dict(
                    full_attention=YARN | dict(rope_theta=5e5),
                    sliding_attention=dict(rope_type="default", rope_theta=5e5),
                )
            ),
        ),
        (
            "smollm3",
            dict(no_rope_layers=[1, 1, 1, 0, 1, 1], rope_theta=7.0),
            dict(no_rope_layer_interval=4, rope_parameters=dict(rope_theta=7.0)),
        ),
        (
            "exaone4",
            dict(sliding_window=9, sliding_window_pattern="LLG"),
            dict(
                sliding_window=9,
                layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2,
            ),
        ),
        (
            "cohere2",
            dict(sliding_window=9, sliding_window_pattern=3),
            dict(
                sliding_window=9,
                layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2,
            ),
        ),
    ],
)
def test_older_and_newer_keys_say_the_same(family, older, newer):
    sizes = dict(SIZES, model_type=family)
    assert decoder_config(sizes | older) == decoder_config(sizes | newer)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(OPT, model_type="opt", word_embed_proj_dim=16), "word_embed_proj_dim=16 .*hidden_s"),
        (dict(OPT, model_type="opt", do_layer_norm_before=False), "do_layer_norm_before=false"),
        (dict(SIZES, model_type="cohere2", use_qk_norm=True), "use_qk_norm=True is not supported"),
        (dict(SIZES, model_type="granitemoehybrid"), "lacks shared_intermediate_size, layer_types"),
        (
            dict(
                SIZES,
                model_type="granitemoehybrid",
                shared_intermediate_size=8,
                layer_types=["mamba"] * 6,
                num_local_experts=0,
            ),
            r"layer_types \['mamba'\] are not supported; valid: attention",
        ),
        (
            dict(
                SIZES,
                model_type="granitemoehybrid",
                shared_intermediate_size=8,
                layer_types=["attention"] * 6,
            ),
            "num_local_experts=8 is not supported; valid: 0",
        ),
        (dict(SIZES, model_type="ministral3"), "lacks llama_4_scaling_beta, original_max_position"),
        (dict(SIZES, model_type="smollm3", no_rope_layers=[1, 0]), "2 layers say if they rotate"),
        (dict(SIZES, model_type="smollm3", no_rope_layers=[2]), "valid: a list of 0 and 1"),
        (
            dict(SIZES, model_type="phi3", rope_scaling=FACTORS | dict(type="longrope")),
            "longrope has 2 factors, must be half of the 8 rotated numbers",
        ),
        (
            dict(SIZES, model_type="phi3", rope_scaling=dict(type="longrope", short_factor=3)),
            "short_factor is 3, valid: a list of numbers",
        ),
        (dict(SIZES, model_type="glm4", partial_rotary_factor=1.5), r"valid: a number in \(0, 1\]"),
        (dict(SIZES, model_type="exaone4", sliding_window_pattern="LLX"), "letters such as LLLG"),
        (
            dict(SIZES, model_type="llama", rope_scaling=dict(rope_type="yarn", factor=0.0)),
            "factor is 0.0, valid: a number above 0",
        ),
    ],
)
def test_what_a_family_cannot_do_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        decoder_config(fields)
