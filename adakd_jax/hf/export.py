"""Writes a model as a folder that `transformers` and vLLM load as it is."""

import dataclasses
import fnmatch
import glob
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import safe_open

from adakd_jax.hf.lora import without_adapters
from adakd_jax.hf.peft import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.hf.tokenizer import save_tokenizer
from adakd_jax.hf.weights import save_weights
from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.families import decoder_config

ARCHITECTURES = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}
# Marks a config.json, or the weights of an adapter, as written here: only such a folder is ever
# replaced.
MARK = "adakd_jax_version"
# Of the file that was loaded, or meant to run code: not of the model that is saved.
_NOT_EXPORTED = ("_name_or_path", "auto_map", "quantization_config", "transformers_version")
_EXPORTED_FILES = (
    "config.json",
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "README.md",
)
_PARTIAL = ".adakd_jax-partial-"
_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
# How a model is computed, and what is beside it, which a config.json does not say.
_COMPUTATION = ("lora", "compute_dtype", "remat", "attention_implementation")


def save_pretrained(
    pretrained: Pretrained,
    path: str | Path,
    *,
    max_shard_size: int | str = "5GB",
    card: str | None = None,
) -> Path:
    """Exports a model: config.json, safetensors, tokenizer, generation config and model card.

    The folder appears complete or not at all: it is written beside its place, then renamed. An
    earlier export in its place is replaced.

    Args:
      pretrained: the model; its parameters are written in the dtype they have, but for one with
        adapters: they are merged into its weights, and all is float32.
      path: the folder to make.
      max_shard_size: bytes, or a number with KB, MB or GB, of one safetensors file.
      card: content of README.md, for instance from `model_card`; None writes none.

    Returns:
      The folder.

    Raises:
      FileExistsError: something other than an earlier export is in its place.
      ValueError: the tokenizer has tokens that the model has not, or the config.json that the
        model came with describes another model.
    """
    pretrained = without_adapters(pretrained)
    hf_config = export_config(pretrained)
    with new_folder(path) as folder:
        save_weights(
            pretrained.config, pretrained.params, hf_config, folder, max_shard_size=max_shard_size
        )
        _write_json(folder / "generation_config.json", _generation_config(pretrained))
        if pretrained.tokenizer is not None:
            save_tokenizer(pretrained.tokenizer, folder)
        if card is not None:
            (folder / "README.md").write_text(card, encoding="utf-8")
    return Path(path).expanduser().absolute()


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder to write an export into, which gets its name `path` when all is written.

    Raises:
      FileExistsError: something other than an earlier export is in its place.
    """
    target = Path(path).expanduser().absolute()
    refuse_to_overwrite(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}{_PARTIAL}"
    for abandoned in target.parent.glob(f"{glob.escape(prefix)}*"):  # by a process that was killed
        shutil.rmtree(abandoned)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix) as scratch:
        folder = Path(scratch) / "new"
        folder.mkdir()
        yield folder
        _share_permissions(folder)
        _put_in_place(folder, target, Path(scratch) / "old")


def refuse_to_overwrite(target: Path) -> None:
    """Checks, before any work, that a folder may be written or replaced.

    Raises:
      FileExistsError: it holds something other than an earlier export.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise FileExistsError(f"{target} is a file; give a folder to export to")
    names = sorted(file.name for file in target.iterdir())
    if not names:
        return
    if not _is_export(target):
        raise FileExistsError(
            f"{target} is not empty and not an earlier export of adakd_jax; choose a new folder"
        )
    foreign = [n for n in names if not any(fnmatch.fnmatch(n, known) for known in _EXPORTED_FILES)]
    if foreign:
        raise FileExistsError(
            f"{target} is an earlier export, but replacing it would delete {', '.join(foreign)}; "
            "move them away or choose a new folder"
        )


def _is_export(folder: Path) -> bool:
    config, adapter = folder / "config.json", folder / ADAPTER_WEIGHTS
    if config.is_file():
        return MARK in json.loads(config.read_text(encoding="utf-8"))
    if not adapter.is_file():
        return False
    with safe_open(adapter, framework="numpy") as file:
        return MARK in (file.metadata() or {})


def export_config(pretrained: Pretrained) -> dict[str, Any]:
    """The config.json of a model, readable by `transformers` 4 and 5 and what builds on them.

    Raises:
      ValueError: the tokenizer has tokens that the model has not, or the config.json that the
        model came with describes another model.
    """
    config, tokenizer = pretrained.config, pretrained.tokenizer
    if tokenizer is not None and len(tokenizer) > config.vocab_size:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens, the model only {config.vocab_size}"
        )
    exported = {k: v for k, v in pretrained.source.hf_config.items() if k not in _NOT_EXPORTED}
    exported |= _older_rope_keys(exported)
    exported["architectures"] = [ARCHITECTURES[config.family]]
    exported["vocab_size"] = config.vocab_size
    exported["tie_word_embeddings"] = config.tied
    generation = _generation_config(pretrained)
    exported |= {name: generation[name] for name in _SPECIAL_IDS if name in generation}
    exported[MARK] = version("adakd_jax")
    _check_description(exported, pretrained.config)
    return exported


def _check_description(hf_config: Mapping[str, Any], config: DecoderConfig) -> None:
    """Reads the config.json back: loaded elsewhere, the weights must mean the same model."""
    described = decoder_config(hf_config)
    differing = [
        f"{name} is {getattr(described, name)!r} there and {getattr(config, name)!r} in the model"
        for name in (field.name for field in dataclasses.fields(config))
        if name not in _COMPUTATION and getattr(described, name) != getattr(config, name)
    ]
    if differing:
        raise ValueError(f"config.json describes another model: {'; '.join(differing)}")


def _older_rope_keys(hf_config: Mapping[str, Any]) -> dict[str, Any]:
    """What version 4 reads in place of version 5's `rope_parameters`.

    Without these keys it would use a default base, and say nothing.
    """
    rope = hf_config.get("rope_parameters")
    if not rope:
        return {}
    if "full_attention" in rope:
        older = _older_rope_keys({"rope_parameters": rope["full_attention"]})
        return older | {"rope_local_base_freq": rope["sliding_attention"]["rope_theta"]}
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    older = {} if scaling.get("rope_type", "default") == "default" else {"rope_scaling": scaling}
    return older | ({"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {})


def _generation_config(pretrained: Pretrained) -> dict[str, Any]:
    """The model's own, with the tokenizer's special ids where it does not say."""
    generation = {
        k: v for k, v in pretrained.source.generation_config.items() if k not in _NOT_EXPORTED
    }
    for name in _SPECIAL_IDS:
        from_tokenizer = getattr(pretrained.tokenizer, name, None)
        if generation.get(name) is None and from_tokenizer is not None:
            generation[name] = from_tokenizer
    return generation


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _share_permissions(folder: Path) -> None:
    """Opens the weights to whom the rest is open to; safetensors makes them the owner's alone."""
    mode = next(folder.glob("*config.json")).stat().st_mode
    for weights in folder.glob("*.safetensors"):
        weights.chmod(mode)


def _put_in_place(folder: Path, target: Path, aside: Path) -> None:
    """Renames `folder` to `target`; if that fails, an earlier `target` is put back."""
    had_earlier = target.exists()
    if had_earlier:
        target.rename(aside)
    try:
        folder.rename(target)
    except OSError:
        if had_earlier:
            aside.rename(target)
        raise
