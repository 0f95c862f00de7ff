"""GGUF files that leave out what llama.cpp has defaults for, come in parts, or are broken."""

import random

import gguf
import jax
import numpy as np
import pytest

from adakd_jax.hf.gguf import load_gguf
from adakd_jax.hf.gguf_config import gguf_hf_config
from adakd_jax.hf.gguf_tokenizer import gguf_tokenizer
from adakd_jax.hf.load import load_pretrained
from adakd_jax.hf.model_files import ModelFileError
from adakd_jax.hf.weights import WeightsError
from adakd_jax.models import Rope, decoder_config
from tests.hf.gguf_models import gguf_tensors, write_gguf
from tests.hf.test_gguf import assert_same_params
from tests.hf.tiny import TINY_LLAMA, make_pretrained, tokenizer_metadata

LLAMA = {
    "general.architecture": "llama",
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 64,
    "llama.block_count": 3,
    "llama.attention.head_count": 4,
    "llama.context_length": 64,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "tokenizer.ggml.tokens": ["a"] * 9,
}
GEMMA = {key.replace("llama", "gemma3"): value for key, value in LLAMA.items()} | {
    "general.architecture": "gemma3"
}


@pytest.fixture(scope="module")
def written(tmp_path_factory, tokenizer_model):
    """A tiny Llama, its tensors in llama.cpp's layout, and its file."""
    folder = tmp_path_factory.mktemp("gguf")
    model = make_pretrained(TINY_LLAMA)
    tensors = gguf_tensors(model, folder / "hf", gguf.MODEL_ARCH.LLAMA)
    path = write_gguf(folder / "whole.gguf", gguf.MODEL_ARCH.LLAMA, tensors, tokenizer_model)
    return model, tensors, path


def test_what_a_file_leaves_out_is_what_llama_cpp_takes_for_it():
    config = decoder_config(gguf_hf_config(LLAMA, {}))
    assert (config.num_kv_heads, config.head_dim) == (4, 8)
    assert config.ropes == (Rope(10_000.0),)
    given = {"llama.attention.head_count_kv": 2, "llama.rope.freq_base": 5e5}
    config = decoder_config(gguf_hf_config(LLAMA | given, {}))
    assert (config.num_kv_heads, config.ropes) == (2, (Rope(5e5),))


@pytest.mark.parametrize(
    ("keys", "rope"),
    [
        ({"rope.scaling.factor": 4.0}, Rope(10_000.0, "linear", 4.0)),
        ({"rope.scale_linear": 4.0}, Rope(10_000.0, "linear", 4.0)),
        ({"rope.scaling.type": "linear"}, Rope(10_000.0)),
        ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, Rope(10_000.0)),
    ],
)
def test_scaling_without_its_type_is_linear(keys, rope):
    metadata = LLAMA | {f"llama.{key}": value for key, value in keys.items()}
    assert decoder_config(gguf_hf_config(metadata, {})).ropes == (rope,)


def test_a_number_may_be_given_layer_by_layer_if_all_are_the_same():
    same = LLAMA | {"llama.attention.head_count_kv": [2, 2, 2]}
    assert gguf_hf_config(same, {})["num_key_value_heads"] == 2
    with pytest.raises(ValueError, match="head_count_kv differs from layer to layer"):
        gguf_hf_config(LLAMA | {"llama.attention.head_count_kv": [2, 2, 4]}, {})


def test_gemma_without_a_window_sees_everything_and_its_optional_keys_are_read():
    assert decoder_config(gguf_hf_config(GEMMA, {})).windows == (None,) * 3
    given = {"gemma3.attention.sliding_window": 8, "gemma3.rope.freq_base_swa": 7.0}
    config = decoder_config(gguf_hf_config(GEMMA | given, {}))
    assert config.windows == (8,) * 3 and config.ropes[1] == Rope(7.0)
    given["gemma3.attention.sliding_window_pattern"] = [True, False, True]
    assert decoder_config(gguf_hf_config(GEMMA | given, {})).windows == (8, None, 8)


def test_a_sentencepiece_vocabulary_has_llama_cpps_special_tokens():
    metadata = {
        "general.architecture": "llama",
        "llama.context_length": 64,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "▁", "a", "▁a"],
    }
    tokenizer = gguf_tokenizer(metadata)
    names = (tokenizer.unk_token, tokenizer.bos_token, tokenizer.eos_token)
    assert names == ("<unk>", "<s>", "</s>")
    assert tokenizer("a")["input_ids"][0] == 1
    with pytest.raises(ValueError, match="number 9, of 6 tokens"):
        gguf_tokenizer(metadata | {"tokenizer.ggml.eos_token_id": 9})


def test_any_part_of_a_split_model_loads_the_whole(written, tmp_path, tokenizer_model):
    model, tensors, _ = written
    for part in (0, 1):
        own = {name: tensor for name, tensor in tensors.items() if ("blk.2" in name) == bool(part)}
        file = tmp_path / f"tiny-0000{part + 1}-of-00002.gguf"
        split = {"split.no": part, "split.count": 2}
        write_gguf(file, gguf.MODEL_ARCH.LLAMA, own, tokenizer_model, **split)
    for part in (1, 2):
        loaded = load_pretrained(tmp_path / f"tiny-0000{part}-of-00002.gguf")
        assert_same_params(loaded.params, model.params)
    (tmp_path / "tiny-00002-of-00002.gguf").rename(tmp_path / "second.gguf")
    with pytest.raises(ModelFileError, match=r"not there: tiny-00002-of-00002\.gguf"):
        load_gguf(tmp_path / "tiny-00001-of-00002.gguf")
    with pytest.raises(ModelFileError, match=r"valid: NAME-00001-of-00002\.gguf"):
        load_gguf(tmp_path / "second.gguf")


def mutated(raw: bytes, chance: random.Random) -> bytes:
    """The file cut off, or with a few bytes of its header or metadata changed."""
    if chance.random() < 0.3:
        return raw[: chance.randrange(len(raw))]
    changed = bytearray(raw)
    for _ in range(chance.randrange(1, 4)):
        place = chance.choice([chance.randrange(24), chance.randrange(700)])
        changed[place] = chance.choice([0, 255, chance.randrange(256)])
    return bytes(changed)


def test_whatever_is_wrong_with_a_file_is_one_error_that_names_it(written, tmp_path):
    raw, chance = written[2].read_bytes(), random.Random(7)
    file, refused, trials = tmp_path / "broken.gguf", 0, 80
    for _ in range(trials):
        file.write_bytes(mutated(raw, chance))
        try:
            load_gguf(file)
        except (ModelFileError, WeightsError) as error:
            assert str(file) in str(error)
            refused += 1
    assert refused > trials / 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"GGUF" + bytes(40), "is not a readable GGUF file"),
    ],
)
def test_what_a_file_is_instead_is_said(tmp_path, content, message):
    file = tmp_path / "other.gguf"
    file.write_bytes(content)
    with pytest.raises(ModelFileError, match=message):
        load_gguf(file)


def test_a_key_that_is_needed_is_named_with_the_file(written, tmp_path, tokenizer_model):
    metadata = tokenizer_metadata(tokenizer_model)
    assert "tokenizer.ggml.merges" in metadata
    file = tmp_path / "no_pre.gguf"
    extra = {"tokenizer.ggml.pre": "unheard-of"}
    write_gguf(file, gguf.MODEL_ARCH.LLAMA, written[1], tokenizer_model, **extra)
    with pytest.raises(ModelFileError, match=rf"^{file}: tokenizer\.ggml\.pre is 'unheard-of'"):
        load_gguf(file)


def test_a_type_that_the_library_cannot_read_is_named(written, monkeypatch):
    def refuse(data, kind):
        raise NotImplementedError(kind)

    monkeypatch.setattr("adakd_jax.hf.gguf_tensors.dequantize", refuse)
    with pytest.raises(ModelFileError, match=r"is of type F32, which the gguf library cannot"):
        load_gguf(written[2])
    assert isinstance(jax.tree.leaves(written[0].params)[0], jax.Array | np.ndarray)
