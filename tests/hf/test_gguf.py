"""GGUF files written with llama.cpp's own names and layout come back as the model they hold."""

import weakref

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
from tests.hf.gguf_models import (
    ARCHITECTURES,
    EXTRA,
    THETAS,
    gguf_tensors,
    write_gguf,
)
from tests.hf.tiny import TINY, TINY_LLAMA, make_pretrained

F16 = gguf.GGMLQuantizationType.F16
Q8_0, Q4_1 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_1


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
    extra = {"rope.dimension_count": TINY["head_dim"]} | EXTRA.get(name, {})
    extra = {f"{gguf.MODEL_ARCH_NAMES[arch]}.{key}": value for key, value in extra.items()}
    tensors = gguf_tensors(model, tmp_path / "hf", arch)
    for kind in ("short", "long") if name == "phi3_longrope" else ():
        factors = hf_config["rope_scaling"][f"{kind}_factor"]
        tensors[f"rope_factors_{kind}.weight"] = np.array(factors, np.float32)
    theta = THETAS.get(name, 1e4)
    path = write_gguf(tmp_path / "m.gguf", arch, tensors, tokenizer_model, theta=theta, **extra)
    loaded = load_pretrained(path)
    # Norms are stored with 1 added, and rates not as logarithms, which rounds them.
    rounded = {"gemma2": 2e-7, "gemma3": 2e-7, "qwen3_5": 5e-7, "qwen3_next": 5e-7}
    assert_same_params(loaded.params, model.params, atol=rounded.get(name, 0.0))
    same = (
        {"initializer_range", "windows", "layer_ropes", "ropes"}
        if name == "gemma3"
        else {"initializer_range"}
    )
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
        ({"llama.rope.scaling.type": "longrope"}, "'longrope'; supported: none, linear, yarn"),
        ({"llama.rope.dimension_count": 4}, "dimension_count is 4; valid: that of a key, 8"),
        ({"tokenizer.ggml.pre": "viking"}, "'viking'; supported: gpt-2, olmo, smollm"),
    ],
)
def test_what_is_not_supported_is_named(llama, extra, message):
    with pytest.raises(ValueError, match=message):
        load_gguf(llama[2](**extra))


def test_other_architectures_and_files_are_refused(tmp_path, llama, tokenizer_model):
    path = tmp_path / "other.gguf"
    write_gguf(path, gguf.MODEL_ARCH.FALCON, llama[1], tokenizer_model)
    with pytest.raises(ValueError, match="'falcon'; supported: arcee, cohere2, ernie4_5, exaone4"):
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
