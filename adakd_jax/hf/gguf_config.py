"""From the metadata of a GGUF file to the config.json its model would have."""

from collections.abc import Mapping
from typing import Any

import numpy as np

# Architectures by llama.cpp's name: what config.json states beyond the sizes.
_FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
    },
    "qwen2": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_act": "silu",
        "use_sliding_window": False,
    },
    "qwen3": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_act": "silu",
        "attention_bias": False,
        "use_sliding_window": False,
    },
    "gemma3": {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "rope_local_base_freq": 10_000.0,
        "sliding_window_pattern": 6,
    },
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
    config = _FAMILIES[architecture] | _sizes(metadata, architecture)
    tokens = len(metadata["tokenizer.ggml.tokens"])
    config["vocab_size"] = shapes.get("token_embd.weight", (tokens,))[0]
    config["tie_word_embeddings"] = "output.weight" not in shapes
    config["dtype"] = "float32"
    config |= {name: metadata[key] for name, key in _SPECIAL_IDS.items() if key in metadata}
    if architecture == "gemma3":
        config |= _gemma3(metadata, config)
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
    sizes["rope_theta"] = _number(own.get("rope.freq_base", _DEFAULT_THETA))
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
        return _number(value)
    if len(set(value)) != 1:
        raise ValueError(f"{key} differs from layer to layer, which is not supported: {value}")
    return _number(value[0])


def _number(value: Any) -> Any:
    """GGUF keeps float32: 1e-5 would read 9.9999997e-06, so take the shortest decimal instead."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _gemma3(metadata: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    # Gemma 3 27B alone scales its queries by its width per head, not by its head dimension.
    largest = config["num_hidden_layers"] == 62
    per_head = config["hidden_size"] // config["num_attention_heads"]
    scale = {"query_pre_attn_scalar": per_head if largest else config["head_dim"]}
    window = metadata.get("gemma3.attention.sliding_window")
    if not window:
        return scale | {"layer_types": ["full_attention"] * config["num_hidden_layers"]}
    found = scale | {"sliding_window": window}
    theta = metadata.get("gemma3.rope.freq_base_swa")
    if theta is not None:
        found["rope_local_base_freq"] = _number(theta)
    pattern = metadata.get("gemma3.attention.sliding_window_pattern")
    if isinstance(pattern, list):
        kinds = ("full_attention", "sliding_attention")
        found["layer_types"] = [kinds[bool(local)] for local in pattern]
    elif pattern is not None:
        found["sliding_window_pattern"] = pattern
    return found


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
    factor = _number(metadata.get(f"{architecture}.rope.scaling.factor", older))
    if kind == "linear" and factor not in (0.0, 1.0):
        return {"rope_type": "linear", "factor": factor}
    return None if factors is None else _llama3_scaling(config, factors)


def _llama3_scaling(config: Mapping[str, Any], factors: np.ndarray) -> dict[str, Any]:
    """Reads Llama 3.1's scaling back from the divisors of the frequencies, all that GGUF keeps."""
    scaling = {
        "rope_type": "llama3",
        "factor": _number(float(factors.max())),
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
