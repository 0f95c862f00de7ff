"""From the metadata of a GGUF file to the config.json its model would have."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from adakd_jax.models.families import FAMILIES
from adakd_jax.models.hf_values import shortest_decimal

# By llama.cpp's name of their architecture.
_FAMILIES = {
    family.gguf.architecture: (family, family.gguf) for family in FAMILIES.values() if family.gguf
}

_REQUIRED = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
_DEFAULT_THETA = 10_000.0

_SPECIAL_IDS = {
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
    "pad_token_id": "tokenizer.ggml.padding_token_id",
}


def gguf_hf_config(
    metadata: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    rope_factors: np.ndarray | None = None,
) -> dict[str, Any]:
    """The content of the config.json that a GGUF file stands for.

    Args:
      metadata: the file's keys and values.
      shapes: shapes of its tensors under their GGUF names, rows first.
      rope_factors: its `rope_freqs.weight`, [head dim / 2], if it has one.

    Raises:
      ValueError: an architecture, key or rotary scaling that is not supported.
    """
    architecture = metadata.get("general.architecture")
    if architecture not in _FAMILIES:
        raise ValueError(
            f"general.architecture is {architecture!r}; supported: {', '.join(_FAMILIES)}"
        )
    family, gguf = _FAMILIES[architecture]
    config = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        **gguf.stated,
        **_sizes(metadata, architecture),
    }
    tokens = len(metadata["tokenizer.ggml.tokens"])
    config["vocab_size"] = shapes.get("token_embd.weight", (tokens,))[0]
    config["tie_word_embeddings"] = "output.weight" not in shapes
    config["dtype"] = "float32"
    config |= {name: metadata[key] for name, key in _SPECIAL_IDS.items() if key in metadata}
    config |= gguf.read(metadata, config)
    scaling = _rope_scaling(metadata, architecture, config, rope_factors)
    return config if scaling is None else config | {"rope_scaling": scaling}


def _sizes(metadata: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    """Sizes and rotary base; what a file may leave out has llama.cpp's default."""
    own = {
        key.removeprefix(f"{architecture}."): value
        for key, value in metadata.items()
        if key.startswith(f"{architecture}.")
    }
    missing = [f"{architecture}.{key}" for key in _REQUIRED.values() if key not in own]
    if missing:
        raise ValueError(f"the metadata lack {', '.join(missing)}")
    sizes = {name: _of_all_layers(own, key) for name, key in _REQUIRED.items()}
    heads = sizes["num_attention_heads"]
    own.setdefault("attention.head_count_kv", heads)
    sizes["num_key_value_heads"] = _of_all_layers(own, "attention.head_count_kv")
    sizes["rope_theta"] = shortest_decimal(own.get("rope.freq_base", _DEFAULT_THETA))
    head_dim = own.get("attention.key_length", sizes["hidden_size"] // heads)
    sizes["head_dim"] = head_dim
    for key in ("attention.value_length", "rope.dimension_count"):
        if own.get(key, head_dim) != head_dim:
            raise ValueError(
                f"{architecture}.{key} is {own[key]}; valid: that of a key, {head_dim}"
            )
    return sizes


def _of_all_layers(own: Mapping[str, Any], key: str) -> Any:
    """A number, which some converters write once a layer."""
    value = own[key]
    if not isinstance(value, list):
        return shortest_decimal(value)
    if len(set(value)) != 1:
        raise ValueError(f"{key} differs from layer to layer, which is not supported: {value}")
    return shortest_decimal(value[0])


def _rope_scaling(
    metadata: Mapping[str, Any],
    architecture: str,
    config: Mapping[str, Any],
    factors: np.ndarray | None,
) -> dict[str, Any] | None:
    """A file that names no type but a factor scales linearly, as files of before types do."""
    kind = metadata.get(f"{architecture}.rope.scaling.type", "linear")
    if kind not in ("none", "linear"):
        raise ValueError(f"{architecture}.rope.scaling.type is {kind!r}; supported: none, linear")
    older = metadata.get(f"{architecture}.rope.scale_linear", 0.0)
    factor = shortest_decimal(metadata.get(f"{architecture}.rope.scaling.factor", older))
    if kind == "linear" and factor not in (0.0, 1.0):
        return {"rope_type": "linear", "factor": factor}
    return None if factors is None else _llama3_scaling(config, factors)


def _llama3_scaling(config: Mapping[str, Any], factors: np.ndarray) -> dict[str, Any]:
    """Reads Llama 3.1's scaling back from the divisors of the frequencies, all that GGUF keeps."""
    scaling = {
        "rope_type": "llama3",
        "factor": shortest_decimal(float(factors.max())),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    head_dim = config["head_dim"]
    frequencies = config["rope_theta"] ** -(np.arange(0, head_dim, 2) / head_dim)
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * np.pi)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    unscaled = np.clip((turns - low) / (high - low), 0.0, 1.0)
    expected = 1.0 / (unscaled + (1.0 - unscaled) / scaling["factor"])
    if factors.shape != expected.shape or not np.allclose(factors, expected, rtol=1e-4):
        raise ValueError("rope_freqs.weight is not the rotary scaling of Llama 3.1 to 3.3")
    return scaling
