"""From the metadata of a GGUF file to the config.json its model would have."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from adakd_jax.models.families import FAMILIES
from adakd_jax.models.family import Family
from adakd_jax.models.gguf_family import Gguf
from adakd_jax.models.hf_values import shortest_decimal

_DEFAULT_THETA = 10_000.0

_SPECIAL_IDS = {
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
    "pad_token_id": "tokenizer.ggml.padding_token_id",
}


class RopeFactors(NamedTuple):
    """Divisors of the rotary frequencies that a file has as tensors, each [rotated numbers / 2].

    `all` are Llama 3.1's, `short` and `long` LongRoPE's.
    """

    all: np.ndarray | None = None
    short: np.ndarray | None = None
    long: np.ndarray | None = None


_NO_FACTORS = RopeFactors()


def gguf_family(metadata: Mapping[str, Any]) -> tuple[Family, Gguf]:
    """The family that a file is of.

    Raises:
      ValueError: an architecture that is not supported.
    """
    architecture = metadata.get("general.architecture")
    known = [(family, family.gguf) for family in FAMILIES.values() if family.gguf]
    for family, gguf in known:
        if gguf.architecture == architecture and gguf.fits(metadata):
            return family, gguf
    names = dict.fromkeys(sorted(gguf.architecture for _, gguf in known))
    raise ValueError(f"general.architecture is {architecture!r}; supported: {', '.join(names)}")


def left_out_layers(metadata: Mapping[str, Any], gguf: Gguf) -> range:
    """Numbers of the layers, after the others, that guess the tokens after the next."""
    count = metadata[f"{gguf.architecture}.block_count"]
    return range(count - metadata.get(f"{gguf.architecture}.nextn_predict_layers", 0), count)


def gguf_hf_config(
    metadata: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    rope_factors: RopeFactors = _NO_FACTORS,
) -> dict[str, Any]:
    """The content of the config.json that a GGUF file stands for.

    Args:
      metadata: the file's keys and values.
      shapes: shapes of its tensors under their GGUF names, rows first.
      rope_factors: its tensors of rotary frequencies.

    Raises:
      ValueError: an architecture, key or rotary scaling that is not supported.
    """
    family, gguf = gguf_family(metadata)
    config = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        **gguf.stated,
        **_sizes(metadata, family, gguf),
    }
    tokens = len(metadata["tokenizer.ggml.tokens"])
    config["vocab_size"] = shapes.get("token_embd.weight", (tokens,))[0]
    config["tie_word_embeddings"] = "output.weight" not in shapes
    config["dtype"] = "float32"
    config |= {name: metadata[key] for name, key in _SPECIAL_IDS.items() if key in metadata}
    config |= gguf.read(metadata, config)
    config |= gguf.look(config, shapes, rope_factors.all)
    if "rope_parameters" in config or not gguf.rotates:
        return config
    scaling = _rope_scaling(metadata, gguf.architecture, config, rope_factors)
    return config if scaling is None else config | {"rope_scaling": scaling}


def _sizes(metadata: Mapping[str, Any], family: Family, gguf: Gguf) -> dict[str, Any]:
    """Sizes and rotary base; what a file may leave out has llama.cpp's default."""
    architecture = gguf.architecture
    own = {
        key.removeprefix(f"{architecture}."): value
        for key, value in metadata.items()
        if key.startswith(f"{architecture}.")
    }
    missing = [f"{architecture}.{key}" for key in gguf.sizes.values() if key not in own]
    if missing:
        raise ValueError(f"the metadata lack {', '.join(missing)}")
    own["block_count"] = left_out_layers(metadata, gguf).start
    sizes = {name: _of_all_layers(own, key) for name, key in gguf.sizes.items()}
    heads = _of_all_layers(own, "attention.head_count")
    own.setdefault("attention.head_count_kv", heads)
    head_dim = own.get("attention.key_length", own["embedding_length"] // heads)
    if gguf.states_heads:
        sizes["num_key_value_heads"] = _of_all_layers(own, "attention.head_count_kv")
        sizes["head_dim"] = head_dim
    _check_heads(own, architecture, head_dim, family.rope.partial is not None)
    if gguf.rotates:
        theta = shortest_decimal(own.get("rope.freq_base", _DEFAULT_THETA))
        sizes[family.rope.theta.key or "rope_theta"] = theta
    if family.rope.partial is not None:
        rotated = own.get("rope.dimension_count", head_dim)
        sizes[family.rope.partial_key] = rotated / head_dim
    return sizes


def _check_heads(own: Mapping[str, Any], architecture: str, head_dim: int, partial: bool) -> None:
    for key in ("attention.value_length", *(() if partial else ("rope.dimension_count",))):
        if own.get(key, head_dim) != head_dim:
            raise ValueError(
                f"{architecture}.{key} is {own[key]}; valid: that of a key, {head_dim}"
            )


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
    factors: RopeFactors,
) -> dict[str, Any] | None:
    """A file that names no type but a factor scales linearly, as files of before types do."""
    own = {
        key.removeprefix(f"{architecture}.rope."): value
        for key, value in metadata.items()
        if key.startswith(f"{architecture}.rope.")
    }
    if factors.long is not None and factors.short is not None:
        short, long = (
            [shortest_decimal(float(f)) for f in each] for each in (factors.short, factors.long)
        )
        return {"rope_type": "longrope", "short_factor": short, "long_factor": long}
    kind = own.get("scaling.type", "linear")
    if kind == "yarn":
        return _yarn_scaling(own, architecture)
    if kind not in ("none", "linear"):
        raise ValueError(
            f"{architecture}.rope.scaling.type is {kind!r}; supported: none, linear, yarn"
        )
    factor = shortest_decimal(own.get("scaling.factor", own.get("scale_linear", 0.0)))
    if kind == "linear" and factor not in (0.0, 1.0):
        return {"rope_type": "linear", "factor": factor}
    return None if factors.all is None else _llama3_scaling(config, factors.all)


def _yarn_scaling(own: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    for key in ("attn_factor", "yarn_attn_factor", "yarn_ext_factor", "yarn_log_multiplier"):
        if own.get(f"scaling.{key}", 1.0) != 1.0:
            raise ValueError(
                f"{architecture}.rope.scaling.{key} is {own[f'scaling.{key}']}; valid: 1.0"
            )
    found = {
        "rope_type": "yarn",
        "factor": shortest_decimal(own["scaling.factor"]),
        "original_max_position_embeddings": own["scaling.original_context_length"],
    }
    for key in ("beta_fast", "beta_slow"):
        if f"scaling.yarn_{key}" in own:
            found[key] = shortest_decimal(own[f"scaling.yarn_{key}"])
    return found


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
