"""What is read of a config.json of Qwen3.5."""

import pytest

from adakd_jax.config.models import LoraConfig
from adakd_jax.hf.lora import lora_of
from adakd_jax.models import decoder_config, parameter_count
from adakd_jax.models.config import DeltaNetSizes

# The defaults of transformers, which are those of the model with 9 billion parameters.
LARGE = dict(
    model_type="qwen3_5_text",
    vocab_size=248320,
    hidden_size=4096,
    intermediate_size=12288,
    num_hidden_layers=32,
    num_attention_heads=16,
    num_key_value_heads=4,
    max_position_embeddings=262144,
    rope_parameters=dict(
        rope_type="default",
        rope_theta=1e7,
        partial_rotary_factor=0.25,
        mrope_section=[11, 11, 10],
        mrope_interleaved=True,
    ),
)


def test_defaults_are_those_of_transformers():
    config = decoder_config(LARGE)
    assert config.mixers == ("delta", "delta", "delta", "attn") * 8
    assert config.delta_net == DeltaNetSizes(16, 32, 128, 128, 4)
    assert (config.head_dim, config.rotary_dim) == (256, 64)
    assert config.ropes[0].theta == 1e7
    # Counted by transformers 5.24.
    assert parameter_count(config) == 8_953_803_264


@pytest.mark.parametrize(
    ("fields", "mixers"),
    [
        (dict(num_hidden_layers=3), ("delta",) * 3),
        (dict(num_hidden_layers=4, full_attention_interval=2), ("delta", "attn") * 2),
        (
            dict(num_hidden_layers=2, layer_types=["full_attention", "linear_attention"]),
            ("attn", "delta"),
        ),
    ],
)
def test_kinds_of_layers_are_a_rule_or_a_list(fields, mixers):
    assert decoder_config(LARGE | fields).mixers == mixers


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            dict(layer_types=["sliding_attention"] * 32),
            r"layer_types \['sliding_attention'\] are not supported; valid: full_attention, linear",
        ),
        (dict(layer_types=["full_attention"] * 3), "mixers has 3 entries for 32 layers"),
        (dict(linear_num_value_heads=24), "value_heads 24 is no multiple of key_heads 16"),
        (dict(linear_conv_kernel_dim="4"), "linear_conv_kernel_dim is '4', valid: a whole number"),
    ],
)
def test_what_does_not_fit_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        decoder_config(LARGE | fields)


def test_targets_are_called_as_transformers_calls_them():
    config = decoder_config(LARGE)
    targets = ("q_proj", "in_proj_qkv", "linear_attn.out_proj")
    assert set(lora_of(LoraConfig(rank=2, targets=targets), config).targets) == {
        *("attn.query", "attn.gate"),
        *("delta.query", "delta.key", "delta.value", "delta.out"),
    }
    with pytest.raises(ValueError, match=r"no projection called conv1d; valid: .*in_proj_qkv"):
        lora_of(LoraConfig(rank=2, targets=("conv1d",)), config)
