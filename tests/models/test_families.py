import pytest

from adakd_jax.models import Rope, decoder_config

SIZES = dict(
    vocab_size=11,
    hidden_size=32,
    intermediate_size=12,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)
LLAMA = dict(SIZES, model_type="llama")
SCALING = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)


def windows(**fields):
    return decoder_config(dict(SIZES, **fields)).windows


@pytest.mark.parametrize(
    ("fields", "rope"),
    [
        (dict(), Rope(10_000.0)),
        (dict(rope_theta=5e5), Rope(5e5)),
        (dict(rope_theta=5e5, rope_scaling=None), Rope(5e5)),
        (dict(rope_parameters=dict(rope_type="default", rope_theta=5e5)), Rope(5e5)),
        (dict(rope_scaling=dict(type="linear", factor=2.0)), Rope(10_000.0, "linear", 2.0)),
        (
            dict(rope_parameters=dict(rope_type="linear", factor=2.0, rope_theta=7.0)),
            Rope(7.0, "linear", 2.0),
        ),
        (
            dict(
                rope_theta=5e5,
                rope_scaling=SCALING
                | dict(rope_type="llama3", original_max_position_embeddings=32),
            ),
            Rope(5e5, "llama3", 8.0, 1.0, 4.0, 32),
        ),
        (
            dict(rope_parameters=SCALING | dict(rope_type="llama3", rope_theta=5e5)),
            Rope(5e5, "llama3", 8.0, 1.0, 4.0, 64),
        ),
    ],
)
def test_rope_is_read_from_transformers_4_and_5(fields, rope):
    assert decoder_config(LLAMA | fields).ropes == (rope,)


def test_gemma3_has_a_local_and_a_global_rope():
    old = dict(
        rope_theta=1e6, rope_local_base_freq=1e4, rope_scaling=dict(rope_type="linear", factor=8.0)
    )
    new = dict(
        rope_parameters=dict(
            full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1e6),
            sliding_attention=dict(rope_type="default", rope_theta=1e4),
        )
    )
    for fields in (old, new):
        config = decoder_config(dict(SIZES, model_type="gemma3_text", **fields))
        assert config.ropes == (Rope(1e6, "linear", 8.0), Rope(1e4))
        assert config.layer_ropes == (1, 1, 1, 1, 1, 0)
        assert config.windows == (4096,) * 5 + (None,)
        assert config.tied and config.qk_norm and config.head_dim == 256


def test_which_layers_see_a_window():
    local = ["sliding_attention", "full_attention"] * 3
    assert windows(model_type="mistral") == (4096,) * 6
    assert windows(model_type="mistral", sliding_window=None) == (None,) * 6
    qwen = dict(model_type="qwen2", sliding_window=7)
    assert windows(**qwen, max_window_layers=2) == (None,) * 6
    assert windows(**qwen, layer_types=local) == (None,) * 6
    qwen = dict(qwen, use_sliding_window=True)
    assert windows(**qwen, max_window_layers=2) == (None,) * 2 + (7,) * 4
    assert windows(**qwen, layer_types=local) == (7, None) * 3
    gemma = dict(model_type="gemma2", sliding_window=7)
    assert windows(**gemma) == (7, None) * 3
    gemma3 = dict(gemma, model_type="gemma3_text", sliding_window_pattern=3)
    assert windows(**gemma3) == (7, 7, None) * 2


def test_defaults_are_those_of_the_family():
    """What a config.json may leave out."""
    llama, qwen3, gemma2 = (
        decoder_config(dict(SIZES, model_type=family)) for family in ("llama", "qwen3", "gemma2")
    )
    assert (llama.tied, llama.head_dim, llama.activation) == (False, 8, "silu")
    assert llama.attention_scale == 8**-0.5
    assert (qwen3.head_dim, qwen3.qk_norm) == (128, "head")
    assert (gemma2.tied, gemma2.activation, gemma2.norm) == (True, "gelu_tanh", "rms_one_plus")
    assert (gemma2.attention_soft_cap, gemma2.logit_soft_cap) == (50.0, 30.0)
    assert gemma2.attention_scale == 256**-0.5 and gemma2.embed_scale == 32**0.5
    sizes = dict(vocab_size=11, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    gpt2 = decoder_config(dict(sizes, model_type="gpt2"))
    assert (gpt2.tied, gpt2.ffw_dim, gpt2.ropes, gpt2.norm_eps) == (True, 128, (), 1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            dict(model_type="bert"),
            r"'bert' is not supported; valid: gemma2, gemma3_text, gpt2, gpt_oss, llama",
        ),
        (dict(model_type="gemma3"), r"for Gemma 3 with vision, use its text model"),
        (dict(model_type=None), r"model_type None"),
        (dict(hidden_act="mish"), r"activation 'mish' .*valid: silu, swish, gelu"),
        (dict(rope_scaling=dict(rope_type="yarn")), r"'yarn' .*valid: default, linear, llama3"),
        (dict(rope_scaling=dict(type="linear")), r"lacks factor"),
        (
            dict(rope_scaling=SCALING | dict(rope_type="llama3", low_freq_factor=4.0)),
            r"low_freq_factor 4\.0 must be below high_freq_factor 4\.0",
        ),
        (dict(rope_parameters=dict(partial_rotary_factor=0.5)), r"partial_rotary_factor 0\.5"),
        (dict(hidden_size=None, vocab_size=None), r"lacks vocab_size, hidden_size"),
        (
            dict(model_type="gemma2", layer_types=["chunked_attention"] * 6),
            r"chunked_attention.*valid: full_attention, sliding_attention",
        ),
        (dict(model_type="gemma2", use_bidirectional_attention=True), r"use_bidirectional"),
        (dict(model_type="gpt2"), r"lacks n_embd, n_layer, n_head, n_positions"),
        (dict(model_type="gemma2", layer_types=["full_attention"]), r"1 entries for 6 layers"),
    ],
)
def test_what_is_not_supported_is_named_with_what_is(fields, message):
    with pytest.raises(ValueError, match=message):
        decoder_config(LLAMA | fields)
