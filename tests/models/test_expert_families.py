"""Families with experts: what their config.json says, what is refused, and what is left alone."""

import dataclasses

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from adakd_jax.config.models import LoraConfig
from adakd_jax.hf import shards
from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.load import load_pretrained
from adakd_jax.hf.lora import lora_of
from adakd_jax.hf.weights import WeightsError
from adakd_jax.models import decoder_config, parameter_count
from adakd_jax.models.config import ClampedSwiglu, Experts
from adakd_jax.models.quantized import Quantization, quantize_params
from adakd_jax.models.size import active_parameter_count, parameters_in_words
from tests.hf.tiny import TINY, hf_tensors, make_pretrained

QWEN = TINY | {
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 16,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}
OSS = TINY | {
    "model_type": "gpt_oss",
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "intermediate_size": 24,
}
OSS = {key: value for key, value in OSS.items() if key != "rope_theta"}


def experts(**fields):
    return decoder_config(QWEN | fields).experts


def test_experts_are_read_from_transformers_4_and_5():
    expected = Experts(4, 2, renormalised=False, balance_weight=0.001)
    assert experts() == experts(num_experts=None, num_local_experts=4) == expected
    given = experts(norm_topk_prob=True, router_aux_loss_coef=0.02)
    assert given == Experts(4, 2, renormalised=True, balance_weight=0.02)
    assert decoder_config(QWEN).ffw_dim == 16
    assert experts(model_type="olmoe") == dataclasses.replace(expected, balance_weight=0.01)
    assert experts(model_type="mixtral") == dataclasses.replace(expected, renormalised=True)


def test_gpt_oss_is_read_as_published():
    config = decoder_config(OSS)
    assert config.experts == Experts(
        4, 2, True, router_bias=True, clamped=ClampedSwiglu(1.702, 7.0), balance_weight=0.001
    )
    assert config.windows == (128, None, 128)
    assert config.attention_sinks and config.qkv_bias and config.out_bias and config.ffw_bias
    [rope] = config.ropes
    assert (rope.kind, rope.theta, rope.factor, rope.truncate) == ("yarn", 150_000.0, 32.0, False)
    assert rope.attention_factor == pytest.approx(0.1 * np.log(32) + 1)
    other = decoder_config(OSS | {"swiglu_limit": 5.0, "sliding_window": 3, "rope_theta": 9.0})
    assert other.experts.clamped == ClampedSwiglu(1.702, 5.0)
    assert other.windows[0] == 3 and other.ropes[0].theta == 9.0


def test_defaults_are_those_of_the_family():
    own = ("model_type", "num_experts", "num_experts_per_tok", "rope_theta", "rms_norm_eps")
    bare = {key: value for key, value in TINY.items() if key not in own}
    found = {
        name: decoder_config(bare | {"model_type": name})
        for name in ("qwen3_moe", "olmoe", "mixtral")
    }
    sizes = {name: (of.experts.count, of.experts.active) for name, of in found.items()}
    assert sizes == {"qwen3_moe": (128, 8), "olmoe": (64, 8), "mixtral": (8, 2)}
    assert [of.norm_eps for of in found.values()] == [1e-6, 1e-5, 1e-5]
    assert [of.ropes[0].theta for of in found.values()] == [1e4, 1e4, 1e6]
    assert [of.qk_norm for of in found.values()] == ["head", "width", None]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(decoder_sparse_step=2), r"decoder_sparse_step=2 .*not supported; valid: 1"),
        (dict(mlp_only_layers=[0]), r"mlp_only_layers=\[0\] .*not supported; valid: \[\]"),
        (dict(num_experts=0), r"num_experts is 0, valid: a whole number above 0"),
        (dict(num_experts_per_tok=5), r"5 active ones of 4; valid: 1 to 4"),
        (dict(model_type="olmoe", clip_qkv=8.0), r"clip_qkv=8\.0 is not supported; valid: null"),
        (
            dict(model_type="mixtral", router_jitter_noise=0.1),
            r"router_jitter_noise=0\.1 is not supported; valid: 0\.0",
        ),
    ],
)
def test_what_is_not_supported_is_named_with_what_is(fields, message):
    with pytest.raises(ValueError, match=message):
        decoder_config(QWEN | fields)


# The published config.json files, in what they say about sizes; the parameters that the safetensors
# of each model add up to; and the active ones that its card names.
PUBLISHED = {
    "Qwen3-30B-A3B": (
        dict(
            model_type="qwen3_moe",
            vocab_size=151936,
            hidden_size=2048,
            intermediate_size=6144,
            moe_intermediate_size=768,
            num_hidden_layers=48,
            num_attention_heads=32,
            num_key_value_heads=4,
            head_dim=128,
            num_experts=128,
            num_experts_per_tok=8,
            norm_topk_prob=True,
            max_position_embeddings=40960,
            rope_theta=1000000.0,
        ),
        30_532_122_624,
        3.3e9,
    ),
    "Mixtral-8x7B-v0.1": (
        dict(
            model_type="mixtral",
            vocab_size=32000,
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
            num_local_experts=8,
            num_experts_per_tok=2,
            max_position_embeddings=32768,
            rope_theta=1000000.0,
        ),
        46_702_792_704,
        12.9e9,
    ),
    "OLMoE-1B-7B-0924": (
        dict(
            model_type="olmoe",
            vocab_size=50304,
            hidden_size=2048,
            intermediate_size=1024,
            num_hidden_layers=16,
            num_attention_heads=16,
            num_key_value_heads=16,
            num_experts=64,
            num_experts_per_tok=8,
            max_position_embeddings=4096,
            clip_qkv=None,
        ),
        6_919_161_856,
        1.3e9,
    ),
    "gpt-oss-20b": (
        dict(
            model_type="gpt_oss",
            vocab_size=201088,
            hidden_size=2880,
            intermediate_size=2880,
            num_hidden_layers=24,
            num_attention_heads=64,
            num_key_value_heads=8,
            head_dim=64,
            num_local_experts=32,
            num_experts_per_tok=4,
            max_position_embeddings=131072,
        ),
        20_914_757_184,
        # The card leaves the input embedding out.
        3.61e9 + 201088 * 2880,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_published_parameters(name):
    hf_config, published, active = PUBLISHED[name]
    config = decoder_config(hf_config)
    assert parameter_count(config) == published
    assert active_parameter_count(config) == pytest.approx(active, rel=0.02)
    if name == "Mixtral-8x7B-v0.1":
        told = "46,702.8M parameters, 12,879.9M of them active"
        assert parameters_in_words(config) == told


def test_adapters_of_experts_are_refused_and_all_means_attention():
    config = decoder_config(QWEN)
    attention = ("attn.query", "attn.key", "attn.value", "attn.out")
    assert lora_of(LoraConfig(), config).targets == attention
    message = (
        r"a qwen3_moe model has no projection called gate_proj that can have an adapter \(routers "
        r"and experts cannot\); valid: q_proj, k_proj, v_proj, o_proj, or null for all"
    )
    with pytest.raises(ValueError, match=message):
        lora_of(LoraConfig(targets=("q_proj", "gate_proj")), config)


@pytest.mark.parametrize(
    ("hf", "how"),
    [(QWEN, Quantization("int8")), (QWEN, Quantization("nf4", 16)), (OSS, Quantization("int8"))],
)
def test_experts_are_rounded_as_they_are_read_and_routers_are_not(hf, how, tmp_path):
    model = make_pretrained(hf)
    folder = save_pretrained(model, tmp_path / "model")
    read = load_pretrained(folder, quantization=how).params
    expected = quantize_params(model.params, how)
    for got, wanted in zip(*map(jax.tree.leaves, (read, expected)), strict=True):
        np.testing.assert_array_equal(got, wanted)
    ffw = read["layers"]["ffw"]
    np.testing.assert_array_equal(
        ffw["router"]["weight"], model.params["layers"]["ffw"]["router"]["weight"]
    )
    assert ffw["experts"]["gate"]["kernel"].scale.shape[:2] == (3, 4)


def test_a_missing_expert_is_named(tmp_path):
    model = make_pretrained(QWEN)
    folder = save_pretrained(model, tmp_path / "model")
    tensors = hf_tensors(model, tmp_path / "again")
    lost = "model.layers.1.mlp.experts.3.up_proj.weight"
    save_file({k: v for k, v in tensors.items() if k != lost}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=rf"1 missing: {lost}"):
        load_pretrained(folder)


@pytest.mark.parametrize("block_bytes", [4 * 2**20, 128])
def test_experts_in_one_tensor_are_read_too(block_bytes, monkeypatch, tmp_path):
    """As transformers 5 has them in memory; and the router by its name there."""
    monkeypatch.setattr(shards, "BLOCK_BYTES", block_bytes)
    model = make_pretrained(QWEN | {"model_type": "mixtral", "intermediate_size": 24})
    folder = save_pretrained(model, tmp_path / "model")
    tensors = {
        name.replace("block_sparse_moe", "mlp"): values
        for name, values in hf_tensors(model, tmp_path / "again").items()
    }
    for layer in range(3):
        own = f"model.layers.{layer}.mlp.experts."
        gate, up, down = (
            np.stack([tensors.pop(f"{own}{expert}.{w}.weight") for expert in range(4)])
            for w in ("w1", "w3", "w2")
        )
        tensors[f"{own}gate_up_proj"] = np.concatenate([gate, up], axis=1)
        tensors[f"{own}down_proj"] = down
    save_file(tensors, folder / "model.safetensors")
    read = load_pretrained(folder).params
    for got, expected in zip(*map(jax.tree.leaves, (read, model.params)), strict=True):
        np.testing.assert_array_equal(got, expected)
    del tensors["model.layers.2.mlp.experts.down_proj"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"4 missing: model\.layers\.2\.block_sparse_moe\.exp"):
        load_pretrained(folder)
