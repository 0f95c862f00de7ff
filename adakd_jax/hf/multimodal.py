"""The text model inside a folder of a model that sees as well: its config.json and its tensors."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from adakd_jax.hf.pretrained import SPECIAL_IDS
from adakd_jax.hf.safetensors_file import SafetensorsReader
from adakd_jax.hf.shards import Index

# What a text model inside another is called there, and as one of its own; the others keep theirs.
_TEXT_TYPES = {
    "qwen2_5_vl": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
}
# `model_type`s, and what their text_config leaves out because it is the default.
MULTIMODAL: dict[str, dict[str, Any]] = {
    "gemma3": {
        "model_type": "gemma3_text",
        "vocab_size": 262_208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131_072,
    },
    "mistral3": {"model_type": "mistral"},
    "qwen2_5_vl": {},
    "qwen3_vl": {},
    "qwen3_5": {},
    "gemma4": {
        "model_type": "gemma4_text",
        "vocab_size": 262_144,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 30,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131_072,
    },
}
# Longest first.
_TEXT_PREFIXES = {
    "model.language_model.": "model.",
    "language_model.model.": "model.",
    "language_model.lm_head.": "lm_head.",
}
_OTHER_PARTS = (
    *("vision_tower", "multi_modal_projector", "visual", "mtp"),
    *("audio_tower", "embed_vision", "embed_audio"),
)


def text_config(hf_config: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of the text model inside; the same, if the model is one of text.

    On text alone a rotation by time, height and width (`mrope`) is the ordinary one, for all three
    positions are the same.
    """
    kind = hf_config.get("model_type")
    if not is_multimodal(hf_config):
        return dict(hf_config)
    given = hf_config.get("text_config")
    inside = dict(given if isinstance(given, Mapping) else hf_config)
    inside = {
        key: value
        for key, value in inside.items()
        if not key.endswith(("vision_config", "audio_config"))
    }
    text = MULTIMODAL[str(kind)] | inside
    text["model_type"] = _TEXT_TYPES.get(text["model_type"], text["model_type"])
    for key in ("tie_word_embeddings", "dtype", "torch_dtype", *SPECIAL_IDS):
        if hf_config.get(key) is not None:
            text[key] = hf_config[key]
    for key in ("rope_scaling", "rope_parameters"):
        if isinstance(text.get(key), Mapping):
            text[key] = _one_dimensional(text[key]) or None
    return text


def is_multimodal(hf_config: Mapping[str, Any]) -> bool:
    """Whether the model has a text model inside that can be read."""
    kind = hf_config.get("model_type")
    return isinstance(kind, str) and kind in MULTIMODAL


class TextReader:
    """Reads the tensors of the text model by the names that they have in a file of its own.

    `shapes` and `read` are those of a `SafetensorsReader`; `left_out` are the other parts by name.
    """

    def __init__(self, files: SafetensorsReader) -> None:
        self._files = files
        self._names = {_own_name(name): name for name in files.shapes if not self.is_other(name)}
        self.shapes = {own: files.shapes[name] for own, name in self._names.items()}
        self.left_out = sorted({_part_of(name) for name in files.shapes if self.is_other(name)})

    def is_other(self, name: str) -> bool:
        """Whether a tensor of the files is of another part."""
        return _part_of(name) in _OTHER_PARTS

    def read(self, name: str, index: Index) -> np.ndarray:
        """A part of a tensor."""
        return self._files.read(self._names[name], index)


def _part_of(name: str) -> str:
    return name.removeprefix("model.").partition(".")[0]


def _own_name(name: str) -> str:
    for prefix, own in _TEXT_PREFIXES.items():
        if name.startswith(prefix):
            return own + name.removeprefix(prefix)
    return name


def _one_dimensional(rope: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in rope.items() if not key.startswith("mrope_")}
    for key in ("rope_type", "type"):
        if kept.get(key) in ("mrope", "default"):
            del kept[key]
    return kept
