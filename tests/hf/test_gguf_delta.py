"""What llama.cpp's files of Qwen3-Next and Qwen3.5 may have besides, or otherwise."""

import gguf
import numpy as np
import pytest

from adakd_jax.hf.gguf_config import gguf_hf_config
from adakd_jax.hf.load import load_pretrained
from adakd_jax.models import decoder_config, parameter_count
from tests.hf.gguf_models import ARCHITECTURES, EXTRA, gguf_tensors, write_gguf
from tests.hf.test_gguf import assert_same_params
from tests.hf.tiny import hf_tensors, make_pretrained
from tests.models.published import PUBLISHED
from tests.models.tiny import forward, packed_rows

ROUNDED = 5e-7
METADATA = {
    "general.architecture": "qwen35",
    "tokenizer.ggml.tokens": ["a"] * 9,
    **{
        f"qwen35.{key}": value
        for key, value in (
            EXTRA["qwen3_5"]
            | {
                "embedding_length": 32,
                "feed_forward_length": 64,
                "block_count": 6,
                "attention.head_count": 4,
                "context_length": 64,
                "attention.layer_norm_rms_epsilon": 1e-6,
            }
        ).items()
    },
}


NEXT_80B = {
    "general.architecture": "qwen3next",
    "tokenizer.ggml.tokens": ["a"] * 151_936,
    "qwen3next.embedding_length": 2048,
    "qwen3next.feed_forward_length": 5120,
    "qwen3next.block_count": 48,
    "qwen3next.context_length": 262_144,
    "qwen3next.attention.head_count": 16,
    "qwen3next.attention.head_count_kv": 2,
    "qwen3next.attention.key_length": 256,
    "qwen3next.attention.value_length": 256,
    "qwen3next.attention.layer_norm_rms_epsilon": 1e-6,
    "qwen3next.rope.freq_base": 1e7,
    "qwen3next.rope.dimension_count": 64,
    "qwen3next.expert_count": 512,
    "qwen3next.expert_used_count": 10,
    "qwen3next.expert_feed_forward_length": 512,
    "qwen3next.expert_shared_feed_forward_length": 512,
    "qwen3next.ssm.conv_kernel": 4,
    "qwen3next.ssm.state_size": 128,
    "qwen3next.ssm.group_count": 16,
    "qwen3next.ssm.time_step_rank": 32,
    "qwen3next.ssm.inner_size": 4096,
    "qwen3next.full_attention_interval": 4,
}


@pytest.fixture
def tiny(tmp_path, tokenizer_model):
    """From a family: a tiny model, its tensors in llama.cpp's layout, a function that loads the
    file of these.
    """

    def make(name):
        arch, hf_config = ARCHITECTURES[name]
        model = make_pretrained(hf_config)
        extra = {f"{gguf.MODEL_ARCH_NAMES[arch]}.{key}": own for key, own in EXTRA[name].items()}

        def load(tensors, **more):
            path = tmp_path / "model.gguf"
            return load_pretrained(
                write_gguf(path, arch, tensors, tokenizer_model, **(extra | more))
            )

        return model, gguf_tensors(model, tmp_path / "hf", arch), load

    return make


def test_layers_that_guess_later_tokens_are_left_out_and_named(tiny):
    model, tensors, load = tiny("qwen3_5")
    more = {"blk.3.nextn.eh_proj.weight": np.ones((32, 64), np.float32)}
    more |= {"blk.3.attn_norm.weight": np.ones(32, np.float32)}
    announced = {"qwen35.block_count": 4, "qwen35.nextn_predict_layers": 1}
    with pytest.warns(UserWarning, match=r"model\.gguf: left out is mtp"):
        loaded = load(tensors | more, **announced)
    assert loaded.config.num_layers == 3
    assert_same_params(loaded.params, model.params, atol=ROUNDED)


def test_older_files_have_the_projections_of_a_delta_net_in_one_tensor(tiny, tmp_path):
    model, tensors, load = tiny("qwen3_next")
    written = hf_tensors(model, tmp_path / "hf")
    for layer in (0, 1):
        for split in ("attn_qkv", "attn_gate"):
            del tensors[f"blk.{layer}.{split}.weight"]
        whole = written[f"model.layers.{layer}.linear_attn.in_proj_qkvz.weight"]
        tensors[f"blk.{layer}.ssm_in.weight"] = whole
    gate = "blk.0.ffn_gate_inp_shexp.weight"
    loaded = load(tensors | {gate: tensors[gate][0]})
    assert_same_params(loaded.params, model.params, atol=ROUNDED)


@pytest.mark.parametrize("name", ["qwen3_5", "qwen3_next"])
def test_logits_are_those_of_the_model(tiny, name):
    model, tensors, load = tiny(name)
    loaded = load(tensors)
    wanted, got = (
        forward(loaded.graphdef, params, *packed_rows())[1]
        for params in (model.params, loaded.params)
    )
    np.testing.assert_allclose(got, wanted, rtol=0.0, atol=2e-5)


@pytest.mark.parametrize(
    ("fields", "mixers"),
    [
        ({}, ("delta", "delta", "attn") * 2),
        ({"full_attention_interval": 2}, ("delta", "attn") * 3),
        (
            {"attention.recurrent_layers": [False, *[True] * 4, False], "nextn_predict_layers": 1},
            ("attn", *["delta"] * 4),
        ),
    ],
)
def test_kinds_of_layers_are_a_rule_or_a_list(fields, mixers):
    own = {f"qwen35.{key}": value for key, value in fields.items()}
    assert decoder_config(gguf_hf_config(METADATA | own, {})).mixers == mixers


def test_without_a_rule_every_fourth_layer_attends():
    metadata = {key: own for key, own in METADATA.items() if "full_attention" not in key}
    mixers = decoder_config(gguf_hf_config(metadata, {})).mixers
    assert mixers == ("delta", "delta", "delta", "attn", "delta", "delta")


def test_metadata_of_the_published_size_are_its_config_json():
    config = decoder_config(gguf_hf_config(NEXT_80B, {"output.weight": (151_936, 2048)}))
    published = PUBLISHED["Qwen3-Next-80B-A3B"]
    hf_config = published.hf_config | {"rope_theta": 1e7}
    assert config == decoder_config(hf_config)
    assert parameter_count(config) == published.parameters


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"qwen35\.ssm\.inner_size is 25; valid: a multiple of"):
        gguf_hf_config(METADATA | {"qwen35.ssm.inner_size": 25}, {})
    with pytest.raises(ValueError, match=r"the metadata lack qwen35\.ssm\.group_count"):
        gguf_hf_config({k: v for k, v in METADATA.items() if "group_count" not in k}, {})
