"""Adapters in PEFT's format: what is written, what is read back, and what is refused."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from adakd_jax.config import LoraConfig
from adakd_jax.hf.adapter import save_adapter
from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.keymap import projections
from adakd_jax.hf.load import load_pretrained
from adakd_jax.hf.lora import lora_of, merge_peft, with_adapters, without_adapters
from adakd_jax.hf.peft import AdapterError, read_adapter
from adakd_jax.models.config import PROJECTIONS
from adakd_jax.models.families import decoder_config
from adakd_jax.models.lora import split_adapters
from tests.hf.tiny import TINY_LLAMA, make_pretrained
from tests.models.family_cases import CASES, ONE_EACH

KEY = jax.random.key(5)
GPT2 = {
    "model_type": "gpt2",
    "n_layer": 2,
    "n_embd": 16,
    "n_head": 2,
    "n_positions": 32,
    "vocab_size": 64,
}
LORA = LoraConfig(rank=4, alpha=8.0, base_dtype="float32")
LLAMA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def trained(model, settings=LORA, scale=0.3):
    """The model with adapters that add something."""
    student = with_adapters(model, settings, KEY)
    noise = np.random.default_rng(2)

    def changed(path, leaf):
        if path[-1].key != "b":
            return leaf
        return jnp.asarray(noise.normal(0, scale, leaf.shape), jnp.float32)

    params = jax.tree_util.tree_map_with_path(changed, student.params)
    return dataclasses.replace(student, params=params)


def assert_same(one, other, **tolerance):
    one, other = flatten_dict(one), flatten_dict(other)
    assert set(one) == set(other)
    for path, leaf in one.items():
        np.testing.assert_allclose(leaf, other[path], err_msg=".".join(path), **tolerance)


@pytest.fixture(scope="module")
def llama():
    return make_pretrained(TINY_LLAMA)


@pytest.fixture(scope="module")
def student(llama):
    return trained(llama)


@pytest.fixture(scope="module")
def folder(student, tmp_path_factory):
    return save_adapter(student, tmp_path_factory.mktemp("peft") / "adapter", base="acme/base")


@pytest.fixture
def edited(folder, tmp_path):
    """A copy of the adapter with other settings or tensors."""

    def edit(settings=None, tensors=None):
        copy = tmp_path / "edited"
        shutil.copytree(folder, copy)
        content = json.loads((copy / "adapter_config.json").read_text()) | (settings or {})
        (copy / "adapter_config.json").write_text(json.dumps(content))
        if tensors is not None:
            file = copy / "adapter_model.safetensors"
            save_file(tensors(load_file(file)), file)
        return copy

    return edit


def test_the_files_are_peft_s(folder, student):
    tensors = load_file(folder / "adapter_model.safetensors")
    sizes = {"q_proj": (32, 32), "k_proj": (32, 16), "v_proj": (32, 16), "o_proj": (32, 32)}
    sizes |= {"gate_proj": (32, 64), "up_proj": (32, 64), "down_proj": (64, 32)}
    wanted = {}
    for layer in range(3):
        for name, (inward, outward) in sizes.items():
            block = "self_attn" if name in ("q_proj", "k_proj", "v_proj", "o_proj") else "mlp"
            module = f"base_model.model.model.layers.{layer}.{block}.{name}"
            wanted[f"{module}.lora_A.weight"] = (4, inward)
            wanted[f"{module}.lora_B.weight"] = (outward, 4)
    assert {name: tensor.shape for name, tensor in tensors.items()} == wanted
    adapter = student.params["layers"]["attn"]["value"]["adapter"]
    module = "base_model.model.model.layers.1.self_attn.v_proj"
    np.testing.assert_array_equal(tensors[f"{module}.lora_A.weight"], adapter["a"][1].T)
    np.testing.assert_array_equal(tensors[f"{module}.lora_B.weight"], adapter["b"][1].T)
    settings = json.loads((folder / "adapter_config.json").read_text())
    told = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "bias": "none"}
    told |= {"lora_dropout": 0.1, "base_model_name_or_path": "acme/base", "fan_in_fan_out": False}
    told |= {"target_modules": LLAMA_TARGETS, "rank_pattern": {}, "alpha_pattern": {}}
    assert {key: settings[key] for key in told} == told


def test_an_adapter_merges_into_the_model_it_came_from(llama, student, folder):
    merged = without_adapters(student)
    assert merged.config == llama.config
    assert_same(merge_peft(llama, folder).params, merged.params, rtol=1e-6, atol=1e-6)
    kernel = llama.params["layers"]["ffw"]["down"]["kernel"]
    adapter = student.params["layers"]["ffw"]["down"]["adapter"]
    wanted = kernel + 2.0 * np.asarray(adapter["a"]) @ np.asarray(adapter["b"])
    got = merged.params["layers"]["ffw"]["down"]["kernel"]
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    assert merge_peft(llama, folder).source.name == f"tiny with {folder}"


def test_it_can_be_trained_further(llama, student, folder):
    again = with_adapters(llama, LORA, KEY, folder)
    assert again.config == student.config
    assert_same(again.params, student.params, rtol=0, atol=0)


def test_a_saved_student_has_its_adapters_merged_and_keeps_its_frozen_precision(
    llama, student, tmp_path
):
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), llama.params)
    adapters = split_adapters(student.params)[1]
    rough = dataclasses.replace(
        student, params=half | {"layers": _joined(half["layers"], adapters["layers"])}
    )
    loaded = load_pretrained(save_pretrained(rough, tmp_path / "merged"))
    assert loaded.config.lora is None
    assert_same(loaded.params, without_adapters(rough).params, rtol=0, atol=0)
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded.params)} == {jnp.dtype("float32")}
    embedding = np.asarray(half["embed"]["embedding"], np.float32)
    np.testing.assert_array_equal(loaded.params["embed"]["embedding"], embedding)


def _joined(one, other):
    return {
        key: _joined(one.get(key, {}), other.get(key, {}))
        if isinstance(one.get(key, other.get(key)), dict)
        else one.get(key, other.get(key))
        for key in one | other
    }


@pytest.mark.parametrize("targets", [None, ("c_attn", "mlp.c_proj")])
def test_a_fused_projection_is_written_block_by_block(targets, tmp_path):
    model = make_pretrained(GPT2)
    settings = LORA.model_copy(update={"targets": targets})
    student = trained(model, settings)
    folder = save_adapter(student, tmp_path / "adapter")
    content = json.loads((folder / "adapter_config.json").read_text())
    assert content["fan_in_fan_out"] and content["rank_pattern"] == {"attn.c_attn": 12}
    assert content["alpha_pattern"] == {"attn.c_attn": 24}
    names = ["c_attn", "c_proj", "c_fc"] if targets is None else ["c_attn", "mlp.c_proj"]
    assert content["target_modules"] == names
    tensors = load_file(folder / "adapter_model.safetensors")
    b = tensors["base_model.model.transformer.h.1.attn.c_attn.lora_B.weight"]
    assert b.shape == (48, 12) and not b[:16, 4:].any() and b[16:32, 4:8].all()
    assert_same(
        merge_peft(model, folder).params, without_adapters(student).params, rtol=1e-6, atol=1e-6
    )
    assert_same(with_adapters(model, settings, KEY, folder).params, student.params, rtol=0)


@pytest.mark.parametrize("case", ["phi3", "gpt_neox", "qwen3_next"])
def test_parts_of_other_sizes_and_parts_by_head_come_back(case, tmp_path):
    model = make_pretrained(CASES[case])
    student = trained(model)
    folder = save_adapter(student, tmp_path / "adapter")
    assert_same(
        merge_peft(model, folder).params, without_adapters(student).params, rtol=1e-6, atol=1e-6
    )
    assert_same(with_adapters(model, LORA, KEY, folder).params, student.params, rtol=0)


@pytest.mark.parametrize("case", ONE_EACH.values())
def test_targets_have_the_names_of_the_family(case):
    config = decoder_config(CASES[case])
    # Layers of several kinds have projections of one name.
    called: dict[str, set[str]] = {}
    for projection in projections(config):
        called.setdefault(projection.module, set()).update(projection.paths)
    for name, paths in called.items():
        some = lora_of(LORA.model_copy(update={"targets": (name,)}), config)
        assert set(some.targets) == paths


def test_an_ordinary_adapter_of_a_fused_projection_reaches_all_its_parts(tmp_path):
    model = make_pretrained(GPT2)
    student = trained(model, LORA.model_copy(update={"targets": ("c_attn",)}))
    folder = save_adapter(student, tmp_path / "adapter")
    file = folder / "adapter_model.safetensors"
    noise = np.random.default_rng(3)
    tensors = {
        name: noise.normal(size=(4, 16) if "lora_A" in name else (48, 4)).astype(np.float32)
        for name in load_file(file)
    }
    save_file(tensors, file)
    content = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps(content | {"rank_pattern": {}, "alpha_pattern": {}})
    )
    merged = merge_peft(model, folder).params["layers"]["attn"]
    for part, name in enumerate(("query", "key", "value")):
        module = "base_model.model.transformer.h.1.attn.c_attn"
        a, b = (tensors[f"{module}.lora_{which}.weight"] for which in "AB")
        added = 2.0 * (b @ a).T[:, 16 * part : 16 * (part + 1)]
        kernel = model.params["layers"]["attn"][name]["kernel"]
        np.testing.assert_allclose(merged[name]["kernel"][1], kernel[1] + added, atol=1e-5)


def test_alpha_may_be_a_module_s_own_and_be_over_the_root_of_the_rank(llama, folder, edited):
    plain = read_adapter(folder, llama.config).updates
    assert {float(s) for update in plain.values() for s in update.scale} == {2.0}
    pattern = {"alpha_pattern": {r"layers\.[02]\.self_attn\.q_proj": 32}, "use_rslora": True}
    own = read_adapter(edited(pattern), llama.config).updates
    assert own["attn.query"].scale.tolist() == [16.0, 4.0, 16.0]
    assert own["attn.key"].scale.tolist() == [4.0, 4.0, 4.0]


def test_targets_are_called_as_transformers_calls_them(llama):
    some = lora_of(LORA.model_copy(update={"targets": ("v_proj", "mlp.up_proj")}), llama.config)
    assert some.targets == ("attn.value", "ffw.up") and some.scale == 2.0
    assert lora_of(LORA, llama.config).targets == PROJECTIONS[:7]
    wrong = LORA.model_copy(update={"targets": ("q_proj", "c_attn", "proj")})
    with pytest.raises(ValueError, match=r"called c_attn, proj; valid: q_proj, k_proj, .*null"):
        lora_of(wrong, llama.config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "IA3"}, r"of type 'IA3'; valid: LORA"),
        (
            {"use_dora": True, "bias": "all", "modules_to_save": ["lm_head"]},
            r"bias is 'all', valid: 'none'; use_dora is True.*modules_to_save is \['lm_head'\]",
        ),
        ({"init_lora_weights": "pissa_niter_4"}, r"changes the model's own weights"),
    ],
)
def test_other_kinds_are_refused(llama, edited, settings, message):
    with pytest.raises(AdapterError, match=message):
        read_adapter(edited(settings), llama.config)


def test_what_does_not_fit_is_named(llama, edited):
    def wrong(tensors):
        layer = "base_model.model.model.layers"
        del tensors[f"{layer}.0.self_attn.q_proj.lora_A.weight"]
        tensors[f"{layer}.1.mlp.up_proj.lora_B.weight"] = np.zeros((9, 4), np.float32)
        tensors[f"{layer}.7.mlp.up_proj.lora_A.weight"] = np.zeros((4, 32), np.float32)
        return tensors

    with pytest.raises(AdapterError) as refused:
        read_adapter(edited(tensors=wrong), llama.config)
    told = str(refused.value)
    assert "layers.0.self_attn.q_proj.lora_A.weight is missing" in told
    assert "layers.1.mlp.up_proj: A [4, 32] and B [9, 4], should be [r, 32] and [64, r]" in told
    assert "layers.7.mlp.up_proj.lora_A.weight belongs to no projection" in told
    assert "llama model of 3 layers and width 32" in told


@pytest.mark.parametrize("changes", [{"rank": 8}, {"alpha": 4.0}, {"targets": ("q_proj",)}])
def test_other_settings_do_not_train_it_further(llama, folder, changes):
    with pytest.raises(AdapterError, match=r"valid: student.lora.rank 4, alpha 8 and targets self"):
        with_adapters(llama, LORA.model_copy(update=changes), KEY, folder)


def test_a_folder_without_an_adapter_is_refused(llama, tmp_path):
    with pytest.raises(AdapterError, match=r"has no adapter_config.json and no adapter_model"):
        read_adapter(tmp_path, llama.config)
    with pytest.raises(ValueError, match=r"tiny has no adapters"):
        save_adapter(llama, tmp_path / "new")


def test_only_an_earlier_export_is_replaced(student, llama, folder, edited, tmp_path):
    target = tmp_path / "target"
    save_adapter(student, target)
    save_pretrained(llama, target)
    save_adapter(student, target, card="# Again")
    assert {file.name for file in target.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    foreign = edited(tensors=lambda tensors: tensors)  # saved anew, without our mark
    with pytest.raises(FileExistsError, match=r"not an earlier export"):
        save_adapter(student, foreign)
