"""GGUF files written with llama.cpp's own names and layout come back as the model they hold."""

import weakref
from pathlib import Path

import gguf
import jax
import numpy as np
import pytest

from adakd_jax.hf import gguf as gguf_module
from adakd_jax.hf import gguf_file
from adakd_jax.hf.gguf import load_gguf
from adakd_jax.hf.load import load_pretrained
from adakd_jax.hf.weights import WeightsError
from adakd_jax.models.config import Rope
from tests.hf.tiny import TINY, TINY_LLAMA, hf_tensors, make_pretrained, tokenizer_metadata

F32, F16 = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16
Q8_0, Q4_1 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_1
ARCHITECTURES = {
    "llama": (gguf.MODEL_ARCH.LLAMA, TINY_LLAMA | {"attention_bias": False, "mlp_bias": False}),
    "llama_untied": (gguf.MODEL_ARCH.LLAMA, TINY | {"model_type": "llama"}),
    "qwen2": (gguf.MODEL_ARCH.QWEN2, TINY | {"model_type": "qwen2"}),
    "qwen3": (gguf.MODEL_ARCH.QWEN3, TINY | {"model_type": "qwen3"}),
    "gemma3": (
        gguf.MODEL_ARCH.GEMMA3,
        TINY
        | {
            "model_type": "gemma3_text",
            "sliding_window": 8,
            "sliding_window_pattern": 2,
            "query_pre_attn_scalar": 8,
            "rope_local_base_freq": 10000.0,
            "tie_word_embeddings": True,
        },
    ),
    "smollm3": (gguf.MODEL_ARCH.SMOLLM3, TINY | {"model_type": "smollm3"}),
    "arcee": (gguf.MODEL_ARCH.ARCEE, TINY | {"model_type": "arcee"}),
    "granite": (
        gguf.MODEL_ARCH.GRANITE,
        TINY
        | {
            "model_type": "granite",
            "embedding_multiplier": 12.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.015625,
            "logits_scaling": 8.0,
        },
    ),
    "olmo2": (gguf.MODEL_ARCH.OLMO2, TINY | {"model_type": "olmo2"}),
    "seed_oss": (gguf.MODEL_ARCH.SEED_OSS, TINY | {"model_type": "seed_oss"}),
    "ernie4_5": (gguf.MODEL_ARCH.ERNIE4_5, TINY | {"model_type": "ernie4_5"}),
    "exaone4": (
        gguf.MODEL_ARCH.EXAONE4,
        TINY | {"model_type": "exaone4", "sliding_window": 8, "sliding_window_pattern": 2},
    ),
}
WINDOWS = {"sliding_window": 8, "sliding_window_pattern": [True, False, True]}
EXTRA = {
    "gemma3": {"gemma3.attention.sliding_window": 8},
    "exaone4": {f"exaone4.attention.{key}": value for key, value in WINDOWS.items()},
    "granite": {
        "granite.embedding_scale": 12.0,
        "granite.residual_scale": 0.22,
        "granite.attention.scale": 0.015625,
        "granite.logit_scale": 8.0,
    },
}


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """The row order that llama.cpp's converter gives Llama's queries and keys."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def as_stored(name: str, tensor: np.ndarray, family: str) -> np.ndarray:
    rotates_pairs = family in ("llama", "smollm3", "arcee", "granite")
    if rotates_pairs and "q_proj" in name:
        return permuted(tensor, TINY["num_attention_heads"])
    if rotates_pairs and "k_proj" in name:
        return permuted(tensor, TINY["num_key_value_heads"])
    return tensor + 1 if family.startswith("gemma") and name.endswith("norm.weight") else tensor


def gguf_tensors(model, folder: Path, arch) -> dict[str, np.ndarray]:
    """The model's tensors as llama.cpp's converter would write them, names by the gguf library."""
    names = gguf.get_tensor_name_map(arch, model.config.num_layers)
    return {
        names.get_name(name, try_suffixes=(".weight", ".bias")): as_stored(
            name, tensor, model.config.family
        )
        for name, tensor in hf_tensors(model, folder).items()
    }


def write_gguf(path: Path, arch, tensors, tokenizer, *, qtypes=None, theta=1e4, **extra) -> Path:
    name = gguf.MODEL_ARCH_NAMES[arch]
    writer = gguf.GGUFWriter(path, name)
    writer.add_block_count(TINY["num_hidden_layers"])
    writer.add_context_length(TINY["max_position_embeddings"])
    writer.add_embedding_length(TINY["hidden_size"])
    writer.add_feed_forward_length(TINY["intermediate_size"])
    writer.add_head_count(TINY["num_attention_heads"])
    writer.add_head_count_kv(TINY["num_key_value_heads"])
    writer.add_key_length(TINY["head_dim"])
    writer.add_layer_norm_rms_eps(TINY["rms_norm_eps"])
    writer.add_rope_freq_base(theta)
    writer.add_license("apache-2.0")
    metadata = tokenizer_metadata(tokenizer)
    for key, value in (metadata | extra).items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, str) and key != "general.architecture":
            writer.add_string(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, int) and not key.endswith("context_length"):
            writer.add_uint32(key, value)
    for tensor_name, tensor in tensors.items():
        qtype = (qtypes or {}).get(tensor_name, F32)
        stored = gguf.quants.quantize(np.asarray(tensor), qtype)
        writer.add_tensor(tensor_name, stored, raw_dtype=qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def llama_tensors(tmp_path_factory):
    """A tiny Llama, and its tensors in llama.cpp's layout."""
    model = make_pretrained(TINY_LLAMA)
    return model, gguf_tensors(model, tmp_path_factory.mktemp("hf"), gguf.MODEL_ARCH.LLAMA)


@pytest.fixture
def llama(llama_tensors, tmp_path, tokenizer_model):
    """The same, with a function that writes the tensors, or others in their place."""
    model, tensors = llama_tensors

    def write(tensors=tensors, **options):
        path = tmp_path / "model.gguf"
        return write_gguf(path, gguf.MODEL_ARCH.LLAMA, tensors, tokenizer_model, **options)

    return model, tensors, write


def assert_same_params(got, wanted, atol=0.0):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=0.0, atol=atol)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_float32_file_gives_back_the_model(name, tmp_path, tokenizer_model):
    arch, hf_config = ARCHITECTURES[name]
    model = make_pretrained(hf_config)
    extra = EXTRA.get(name, {}) | {
        f"{gguf.MODEL_ARCH_NAMES[arch]}.rope.dimension_count": TINY["head_dim"]
    }
    tensors = gguf_tensors(model, tmp_path / "hf", arch)
    path = write_gguf(tmp_path / "m.gguf", arch, tensors, tokenizer_model, **extra)
    loaded = load_pretrained(path)
    # Gemma's norms are stored with 1 added, which rounds them.
    assert_same_params(loaded.params, model.params, atol=2e-7 if name == "gemma3" else 0.0)
    same = {"initializer_range", "windows", "layer_ropes"}
    for field, value in vars(model.config).items():
        assert field in same or getattr(loaded.config, field) == value, field
    assert loaded.source.licence == "apache-2.0"
    assert loaded.source.generation_config == {
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }


def test_quantised_tensors_are_dequantised(llama):
    model, tensors, write = llama
    qtypes = {"token_embd.weight": Q8_0, "blk.1.ffn_up.weight": Q4_1, "blk.2.attn_v.weight": F16}
    params = load_gguf(write(qtypes=qtypes)).params
    for name, got in {
        "token_embd.weight": params["embed"]["embedding"],
        "blk.1.ffn_up.weight": params["layers"]["ffw"]["up"]["kernel"][1].T,
        "blk.2.attn_v.weight": params["layers"]["attn"]["value"]["kernel"][2].T,
    }.items():
        stored = gguf.quants.quantize(tensors[name], qtypes[name])
        wanted = gguf.quants.dequantize(stored, qtypes[name])
        np.testing.assert_array_equal(got, wanted)
        assert np.abs(wanted - tensors[name]).max() > 0.0
    untouched = params["layers"]["ffw"]["up"]["kernel"][0]
    np.testing.assert_array_equal(untouched, model.params["layers"]["ffw"]["up"]["kernel"][0])


def test_parameters_have_the_asked_dtype(llama):
    _, _, write = llama
    loaded = load_gguf(write(), dtype=jax.numpy.bfloat16, remat="full")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(loaded.params)} == {"bfloat16"}
    assert (loaded.config.compute_dtype, loaded.config.remat) == ("bfloat16", "full")


def test_all_wrong_tensors_are_named_in_one_error(llama):
    _, tensors, write = llama
    broken = dict(tensors)
    del broken["blk.1.attn_norm.weight"], broken["token_embd.weight"]
    broken["blk.0.ffn_gate_exps.weight"] = np.zeros((2, 32), np.float32)
    broken["output_norm.weight"] = np.zeros(16, np.float32)
    with pytest.raises(WeightsError) as error:
        load_gguf(write(broken))
    assert "2 missing: model.embed_tokens.weight, model.layers.1.input_layernorm.weight" in str(
        error.value
    )
    assert "1 extra: blk.0.ffn_gate_exps.weight" in str(error.value)
    assert "model.norm.weight is [16], should be [32]" in str(error.value)


def test_the_memory_map_is_released(llama, monkeypatch):
    maps = []

    class Recording(gguf_file.BoundedReader):
        def __init__(self, path):
            super().__init__(path)
            maps.append(weakref.ref(self.data))

    monkeypatch.setattr(gguf_file, "BoundedReader", Recording)
    path = llama[2]()
    loaded = load_gguf(path)
    with gguf_module.open_gguf(path) as file:
        assert maps[1]() is not None
    assert file.shapes["model.norm.weight"] == (32,)
    assert [m() for m in maps] == [None, None] and loaded.params


def llama3_factors(factor: float, theta: float) -> np.ndarray:
    """`rope_freqs.weight` as llama.cpp's converter computes it for Llama 3.1, frequency by
    frequency."""
    factors = []
    for i in range(0, TINY["head_dim"], 2):
        wavelength = 2 * np.pi * theta ** (i / TINY["head_dim"])
        if wavelength < 8192 / 4.0:
            factors.append(1.0)
        elif wavelength > 8192 / 1.0:
            factors.append(factor)
        else:
            smooth = (8192 / wavelength - 1.0) / (4.0 - 1.0)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, np.float32)


def test_llama3_rotary_scaling_is_read_back_from_its_factors(llama):
    _, tensors, write = llama
    factors = llama3_factors(8.0, theta=1e6)
    assert 1.0 < factors[2] < 8.0
    rope = load_gguf(write(tensors | {"rope_freqs.weight": factors}, theta=1e6)).config.ropes[0]
    assert rope == Rope(1e6, "llama3", 8.0, 1.0, 4.0, 8192)
    with pytest.raises(ValueError, match=r"rope_freqs\.weight is not"):
        load_gguf(write(tensors | {"rope_freqs.weight": factors}, theta=1e5))


def test_linear_rotary_scaling(llama):
    scaling = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    rope = load_gguf(llama[2](**scaling)).config.ropes[0]
    assert (rope.kind, rope.factor, rope.theta) == ("linear", 4.0, 10000.0)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"llama.rope.scaling.type": "yarn"}, "'yarn'; supported: none, linear"),
        ({"llama.rope.dimension_count": 4}, "dimension_count is 4; valid: that of a key, 8"),
        ({"tokenizer.ggml.pre": "tekken"}, "'tekken'; supported: gpt-2, olmo, smollm"),
    ],
)
def test_what_is_not_supported_is_named(llama, extra, message):
    with pytest.raises(ValueError, match=message):
        load_gguf(llama[2](**extra))


def test_other_architectures_and_files_are_refused(tmp_path, llama, tokenizer_model):
    path = tmp_path / "other.gguf"
    write_gguf(path, gguf.MODEL_ARCH.FALCON, llama[1], tokenizer_model)
    with pytest.raises(ValueError, match="'falcon'; supported: arcee, ernie4_5, exaone4, gemma3"):
        load_gguf(path)
    path.write_bytes(b"not a gguf file, but long enough to have a header")
    with pytest.raises(ValueError, match="not a readable GGUF file"):
        load_gguf(path)


def test_end_of_turn_ends_generation_too(llama):
    loaded = load_gguf(llama[2](**{"tokenizer.ggml.eot_token_id": 0}))
    assert loaded.source.generation_config["eos_token_id"] == [2, 0]


def test_without_weights_a_model_is_the_same_but_for_shapes(llama):
    write = llama[2]
    whole, shapes = (load_gguf(write(), weights=weights) for weights in (True, False))
    assert (shapes.config, shapes.source) == (whole.config, whole.source)
    assert shapes.tokenizer is not None
    for one, other in zip(*map(jax.tree.leaves, (shapes.params, whole.params)), strict=True):
        assert isinstance(one, jax.ShapeDtypeStruct)
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
