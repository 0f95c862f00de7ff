"""Files of a model that are broken, of another kind, or two of them where one is read."""

import json
import random
import shutil
import struct

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adakd_jax.hf.load import load_pretrained
from adakd_jax.hf.model_files import ModelFileError, read_json
from adakd_jax.hf.tokenizer import load_tokenizer
from adakd_jax.hf.weights import WeightsError
from tests.hf.test_load import GPT2, LLAMA, TIED, assert_same, edit, saved

ONE_LAYER = LLAMA | dict(num_hidden_layers=1)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4096\n"
INDEX = "model.safetensors.index.json"
TRIALS = 150


def with_header(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def mutated(raw: bytes, chance: random.Random) -> bytes:
    """A safetensors file with something changed: anywhere, in its length, header or end."""
    size = int.from_bytes(raw[:8], "little")
    header, data = raw[8 : 8 + size], raw[8 + size :]
    kind = chance.randrange(6)
    if kind == 0:
        return raw[: chance.randrange(len(raw))]
    if kind == 1:
        return (
            struct.pack("<Q", chance.choice([0, 1, size - 1, size + 1, 2**33, 2**64 - 1])) + raw[8:]
        )
    if kind == 2:
        place = chance.randrange(8, 8 + size)
        return raw[:place] + bytes([chance.randrange(256)]) + raw[place + 1 :]
    described = json.loads(header)
    tensor = described[chance.choice([name for name in described if name != "__metadata__"])]
    if kind == 3:
        tensor["data_offsets"][chance.randrange(2)] = chance.choice([-1, 0, 3, 2**40, "0", None])
    elif kind == 4:
        tensor["shape"] = chance.choice([[], [0], [-1, 8], [2**40, 2**40], "8", [8.5, 1], None])
    else:
        tensor["dtype"] = chance.choice(["F8_E4M3", "F4", "I32", "BOOL", "F64", "F128", 4, None])
    return with_header(json.dumps(described).encode(), data)


def test_whatever_is_wrong_with_a_weight_file_is_one_error_that_names_it(tmp_path):
    saved(tmp_path, ONE_LAYER)
    file = tmp_path / "model.safetensors"
    raw, chance = file.read_bytes(), random.Random(5)
    refused = 0
    for _ in range(TRIALS):
        file.write_bytes(mutated(raw, chance))
        try:
            load_pretrained(tmp_path)
        except ModelFileError as error:
            assert str(error).startswith(f"{file} ") and "; " in str(error)
            refused += 1
        except WeightsError as error:
            assert str(tmp_path) in str(error)
            refused += 1
    assert refused > TRIALS * 0.9


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; download or copy it again"),
        (POINTER, "is a Git LFS pointer, .*: git lfs pull"),
        (b"<!DOCTYPE html><html>Sign in</html>", "is a web page"),
        (with_header(b"[" * 9999), "is not a whole safetensors file"),
        (with_header(b"\xff\xfe"), "is not a whole safetensors file"),
        (
            with_header(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}', b"half"),
            "announces",
        ),
    ],
)
def test_what_a_weight_file_is_instead_is_said(tmp_path, content, message):
    saved(tmp_path, ONE_LAYER)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelFileError, match=message):
        load_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not readable JSON"),
        ("[]", "holds a list, not an object"),
        ('{"metadata": {}}', "has no weight_map"),
        ('{"weight_map": {}}', "has no weight_map"),
        ('{"weight_map": ["model.safetensors"]}', "has no weight_map"),
        ('{"weight_map": {"lm_head.weight": 3}}', "other values than names of files"),
        ('{"weight_map": {"lm_head.weight": "gone.safetensors"}}', "not there: gone.safetensors"),
        (POINTER.decode(), "is a Git LFS pointer"),
    ],
)
def test_a_broken_index_is_named(tmp_path, content, message):
    saved(tmp_path, ONE_LAYER, max_shard_size="0.001MB")
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(ModelFileError, match=f"{INDEX} .*{message}"):
        load_pretrained(tmp_path)


def test_a_whole_file_goes_before_an_index_and_that_is_said(tmp_path):
    saved(tmp_path, ONE_LAYER, max_shard_size="0.001MB")
    params, _ = saved(tmp_path / "whole", ONE_LAYER)
    new = jax.tree.map(lambda leaf: leaf + 1, params)
    tensors = load_file(tmp_path / "whole" / "model.safetensors")
    save_file({k: v + 1 for k, v in tensors.items()}, tmp_path / "model.safetensors")
    with pytest.warns(UserWarning, match=r"model\.safetensors is read, as in transformers"):
        assert_same(load_pretrained(tmp_path).params, new)
    for shard in tmp_path.glob("model-*.safetensors"):
        shard.unlink()
    with pytest.warns(UserWarning, match=INDEX):
        assert_same(load_pretrained(tmp_path).params, new)


def test_the_configuration_may_name_the_file(tmp_path):
    params, _ = saved(tmp_path, ONE_LAYER)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
    (tmp_path / "model.safetensors").write_bytes(b"")
    named = config | dict(transformers_weights="other.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(named))
    assert_same(load_pretrained(tmp_path).params, params)
    named = config | dict(transformers_weights="../other.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(named))
    with pytest.raises(ModelFileError, match=r"config\.json: transformers_weights is '\.\./other"):
        load_pretrained(tmp_path)


def test_a_link_to_nothing_is_said(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "gone")
    with pytest.raises(ModelFileError, match=r"model\.safetensors \(a link to nothing\)"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("hf_config", [TIED, GPT2], ids=["llama", "gpt2"])
def test_a_tied_embedding_may_stand_under_the_name_of_the_head(tmp_path, hf_config):
    params, _ = saved(tmp_path, hf_config)
    name = "transformer.wte.weight" if hf_config is GPT2 else "model.embed_tokens.weight"
    edit(tmp_path, lambda tensors: tensors.update({"lm_head.weight": tensors.pop(name)}))
    assert_same(load_pretrained(tmp_path).params, params)


def test_a_head_alone_is_no_embedding_of_an_untied_model(tmp_path):
    saved(tmp_path, ONE_LAYER)
    edit(tmp_path, lambda tensors: tensors.pop("model.embed_tokens.weight"))
    with pytest.raises(WeightsError, match=r"1 missing: model\.embed_tokens\.weight"):
        load_pretrained(tmp_path)


def test_quantised_folders_are_named_before_their_tensors_are_compared(tmp_path):
    saved(tmp_path, ONE_LAYER)
    config = json.loads((tmp_path / "config.json").read_text())
    for how, method in (
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"load_in_4bit": True}, "load_in_4bit"),
        ({"bits": 4}, "an unnamed method"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": how}))
        with pytest.raises(ModelFileError, match=rf"is quantised \({method}, says"):
            load_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, np.int8])
def test_tensors_of_a_quantised_model_are_named_with_their_dtype(tmp_path, dtype):
    saved(tmp_path, ONE_LAYER)
    name = "model.layers.0.mlp.up_proj.weight"

    def spoil(tensors):
        tensors[name] = tensors[name].astype(dtype)

    edit(tmp_path, spoil)
    with pytest.raises(ModelFileError, match=rf"1 tensors that are no plain weights: {name} is"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_a_broken_configuration_is_named(tmp_path, name):
    saved(tmp_path, ONE_LAYER)
    for content in (b"{,}", b"[1]", b'{"a": "\xe9"}', b"", POINTER):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelFileError, match=rf"^{tmp_path / name} (is|holds) "):
            load_pretrained(tmp_path)


def test_an_unsupported_configuration_is_named_with_its_file(tmp_path):
    saved(tmp_path, ONE_LAYER)
    (tmp_path / "config.json").write_text(json.dumps(ONE_LAYER | dict(hidden_size="8")))
    with pytest.raises(ModelFileError, match=r"config\.json: .*hidden_size is '8'"):
        load_pretrained(tmp_path)


def test_an_adapter_in_place_of_or_beside_a_model_is_said(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelFileError, match=r"it is a PEFT adapter: name its base model"):
        load_pretrained(tmp_path)
    saved(tmp_path, ONE_LAYER)
    with pytest.warns(UserWarning, match="read without that adapter"):
        load_pretrained(tmp_path)


def test_contradicting_rotary_keys_are_warned_of(tmp_path):
    scaled = dict(rope_scaling=dict(rope_type="linear", factor=2.0))
    saved(tmp_path, ONE_LAYER | scaled | dict(rope_parameters=dict(rope_theta=5.0)))
    with pytest.warns(UserWarning, match=r"config\.json: its keys of rotary positions contradict"):
        assert load_pretrained(tmp_path).config.ropes[0].factor == 2.0


def test_a_broken_tokenizer_file_is_named(tmp_path, tokenizer):
    for name, content, message in (
        ("tokenizer.json", b"{", r"tokenizer\.json is not readable JSON"),
        ("tokenizer.json", POINTER, r"tokenizer\.json is a Git LFS pointer"),
        ("tokenizer.json", b'{"model": 3}', "no tokenizer can be loaded from"),
        ("tokenizer_config.json", b"no", r"tokenizer_config\.json is not readable JSON"),
    ):
        folder = tmp_path / "model"
        tokenizer.save_pretrained(folder)
        (folder / name).write_bytes(content)
        with pytest.raises(ModelFileError, match=message):
            load_tokenizer(folder)
        shutil.rmtree(folder)


LICENCES = [
    (b"---\nlicense: mit\n---\n", "mit"),
    (b'---\r\nlicense: "mit"\r\n---\r\n', "mit"),
    (b"---\nlicense:\n- apache-2.0\n---\n", "apache-2.0"),
    (b"---\nlicense: [apache-2.0, mit]\n---\n", "apache-2.0, mit"),
    (b"---\nlicense: mit\n---\ncaf\xe9\n", "mit"),
    (b"---\nlicense:\n---\n", None),
    (b"---\n- license\n---\n", None),
    (b"# A model\nlicense: mit\n", None),
    (b"", None),
]


@pytest.mark.parametrize(("card", "licence"), LICENCES)
def test_the_licence_is_read_from_any_card(tmp_path, card, licence):
    saved(tmp_path, ONE_LAYER)
    (tmp_path / "README.md").write_bytes(card)
    assert load_pretrained(tmp_path).source.licence == licence


def test_a_card_whose_front_matter_is_broken_is_warned_of(tmp_path):
    saved(tmp_path, ONE_LAYER)
    (tmp_path / "README.md").write_text("---\nlicense: [mit\n---\n")
    with pytest.warns(UserWarning, match=r"README\.md: its front matter is no YAML"):
        assert load_pretrained(tmp_path).source.licence is None


def test_json_of_any_depth_ends_in_the_same_error(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ModelFileError, match=r"deep\.json is not readable JSON"):
        read_json(tmp_path / "deep.json")


def test_a_weight_file_is_no_model(tmp_path):
    saved(tmp_path, ONE_LAYER)
    with pytest.raises(ModelFileError, match=r"is a file and no \.gguf file; valid: the folder"):
        load_pretrained(tmp_path / "model.safetensors")
