"""Writes a model as a folder that `transformers` and vLLM load as it is."""

import dataclasses
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from etils import epath

from adakd_jax.hf.folder import MARK, absolute, new_folder
from adakd_jax.hf.lora import without_adapters
from adakd_jax.hf.pretrained import SPECIAL_IDS, Pretrained
from adakd_jax.hf.tokenizer import save_tokenizer
from adakd_jax.hf.vocabulary import check_tokenizer_fits
from adakd_jax.hf.write import save_weights
from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.families import FAMILIES, decoder_config
from adakd_jax.models.rope_keys import GLOBAL, RopeKeys, without_contradictions
from adakd_jax.processes import is_first

# Of the file that was loaded, or meant to run code: not of the model that is saved.
_NOT_EXPORTED = ("_name_or_path", "auto_map", "quantization_config", "transformers_version")
# How a model is computed, and what is beside it, which a config.json does not say.
_COMPUTATION = ("lora", "compute_dtype", "remat", "attention_implementation")


def save_pretrained(
    pretrained: Pretrained,
    path: epath.PathLike,
    *,
    max_shard_size: int | str = "5GB",
    card: str | None = None,
) -> epath.Path:
    """Exports a model: config.json, safetensors, tokenizer, generation config and model card.

    On a file system the folder appears complete or not at all, and an earlier export in its place
    is replaced then; in a bucket it says that it is incomplete until it is not. Every process of a
    run must call this: the first one writes, and all give it what they hold.

    Args:
      pretrained: the model; its parameters are written in the dtype they have, but for one with
        adapters: they are merged into its weights, and all is float32.
      path: the folder to make; local, or remote as in gs://bucket/folder.
      max_shard_size: bytes, or a number with KB, MB or GB, of one safetensors file.
      card: content of README.md, for instance from `model_card`; None writes none.

    Returns:
      The folder.

    Raises:
      FileExistsError: something other than an earlier export is in its place.
      UnknownTokensError: the tokenizer has tokens that the model has not.
      ValueError: the config.json that the model came with describes another model.
    """
    pretrained = without_adapters(pretrained)
    hf_config = export_config(pretrained)
    with new_folder(path) as folder:
        if is_first():
            _write_beside_weights(pretrained, folder, hf_config, card)
        save_weights(
            pretrained.config, pretrained.params, hf_config, folder, max_shard_size=max_shard_size
        )
    return absolute(path)


def _write_beside_weights(
    pretrained: Pretrained, folder: epath.Path, hf_config: Mapping[str, Any], card: str | None
) -> None:
    generation = json.dumps(_generation_config(pretrained), indent=2, ensure_ascii=False) + "\n"
    (folder / "generation_config.json").write_text(generation, encoding="utf-8")
    if pretrained.tokenizer is not None:
        save_tokenizer(pretrained.tokenizer, folder, hf_config)
    if card is not None:
        (folder / "README.md").write_text(card, encoding="utf-8")


def export_config(pretrained: Pretrained) -> dict[str, Any]:
    """The config.json of a model, readable by `transformers` 4 and 5 and what builds on them.

    Raises:
      UnknownTokensError: the tokenizer has tokens that the model has not.
      ValueError: the config.json that the model came with describes another model.
    """
    config = pretrained.config
    check_tokenizer_fits(pretrained, "the model")
    exported = {k: v for k, v in pretrained.source.hf_config.items() if k not in _NOT_EXPORTED}
    family = FAMILIES[config.family]
    exported = without_contradictions(exported, family.rope)
    exported |= _older_rope_keys(exported, family.rope)
    exported["architectures"] = [family.architecture]
    exported["vocab_size"] = config.vocab_size
    exported["tie_word_embeddings"] = config.tied
    generation = _generation_config(pretrained)
    exported |= {name: generation[name] for name in SPECIAL_IDS if name in generation}
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


def _older_rope_keys(hf_config: Mapping[str, Any], keys: RopeKeys) -> dict[str, Any]:
    """What version 4 reads in place of version 5's `rope_parameters`.

    Without these keys it would use a default base, and say nothing.
    """
    rope = hf_config.get("rope_parameters")
    if not rope or not keys.older:
        return {}
    sets = {GLOBAL: rope} if keys.local is None else rope
    found = {
        theta.key: sets[kind]["rope_theta"]
        for kind, theta in keys.thetas.items()
        if theta.key and "rope_theta" in (sets.get(kind) or {})
    }
    whole = dict(sets.get(GLOBAL) or {})
    whole.pop("rope_theta", None)
    share = whole.pop("partial_rotary_factor", None)
    if keys.partial is not None and share is not None:
        found[keys.partial_key] = share
    if whole.get("rope_type", "default") != "default":
        found["rope_scaling"] = whole
    return found


def _generation_config(pretrained: Pretrained) -> dict[str, Any]:
    """The model's own, with the tokenizer's special ids where it does not say."""
    generation = {
        k: v for k, v in pretrained.source.generation_config.items() if k not in _NOT_EXPORTED
    }
    for name in SPECIAL_IDS:
        from_tokenizer = getattr(pretrained.tokenizer, name, None)
        if generation.get(name) is None and from_tokenizer is not None:
            generation[name] = from_tokenizer
    return generation
