"""What the config.json files of many families have in common."""

import dataclasses
from collections.abc import Sequence

from adakd_jax.models.config import Activation, DecoderConfig
from adakd_jax.models.hf_values import HFConfig, require
from adakd_jax.models.rope_keys import (
    GLOBAL,
    LAYER_TYPES,
    LOCAL,
    ROPE_KEYS,
    RopeKeys,
    read_ropes,
    read_rotary_dim,
)
from adakd_jax.models.rotations import NO_ROTATION

ACTIVATION_NAMES: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
}
SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)


def read_common(
    hf: HFConfig,
    *,
    default_kv_heads: int | None = None,
    default_head_dim: int | None = None,
    default_tied: bool = False,
    default_activation: str = "silu",
    default_eps: float = 1e-6,
    rope: RopeKeys = ROPE_KEYS,
) -> DecoderConfig:
    """What families after GPT-2 write alike; the keywords are the family's own defaults.

    Where `rope` has sets by layer type, the caller says which layers are of which.

    Raises:
        ValueError: a size is missing, or an activation or rotation is not supported.
    """
    require(hf, *SIZES)
    layers, heads = hf["num_hidden_layers"], hf["num_attention_heads"]
    head_dim = hf.get("head_dim", default_head_dim) or hf["hidden_size"] // heads
    return DecoderConfig(
        family=hf["model_type"],
        vocab_size=hf["vocab_size"],
        embed_dim=hf["hidden_size"],
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=hf.get("num_key_value_heads", default_kv_heads) or heads,
        head_dim=head_dim,
        ffw_dim=hf["intermediate_size"],
        max_positions=hf["max_position_embeddings"],
        windows=(None,) * layers,
        ropes=read_ropes(hf, rope),
        layer_ropes=(0,) * layers if rope.local else (),
        rotary_dim=read_rotary_dim(hf, rope, head_dim),
        activation=read_activation(
            hf.get("hidden_activation") or hf.get("hidden_act") or default_activation
        ),
        norm_eps=hf.get("rms_norm_eps", default_eps),
        tied=hf.get("tie_word_embeddings", default_tied),
        attention_scale=head_dim**-0.5,
        initializer_range=hf.get("initializer_range", 0.02),
    )


def read_activation(name: str) -> Activation:
    """Ours for Hugging Face's name.

    Raises:
        ValueError: it is not supported.
    """
    if name not in ACTIVATION_NAMES:
        raise ValueError(
            f"activation {name!r} is not supported; valid: {', '.join(ACTIVATION_NAMES)}"
        )
    return ACTIVATION_NAMES[name]


def read_windows(hf: HFConfig, kinds: Sequence[str]) -> tuple[int | None, ...]:
    """The window of each layer, from what kind of layer it is.

    Raises:
        ValueError: a kind that is not supported.
    """
    unknown = sorted(set(kinds) - set(LAYER_TYPES))
    if unknown:
        raise ValueError(
            f"layer_types {unknown} are not supported; valid: {', '.join(LAYER_TYPES)}"
        )
    window = hf.get("sliding_window", 4096)
    return tuple(window if kind == LOCAL else None for kind in kinds)


def every(pattern: int | str, layers: int) -> list[str]:
    """Kinds of layers where each `pattern`-th sees everything (0: all do), the others a window; or
    by the letters of a pattern, G and L.
    """
    if pattern == 0:
        return [GLOBAL] * layers
    letters = pattern if isinstance(pattern, str) else "L" * (pattern - 1) + "G"
    return [LAYER_TYPES[letters[layer % len(letters)] == "L"] for layer in range(layers)]


def rotate_only(config: DecoderConfig, rotated: Sequence[bool]) -> DecoderConfig:
    """The same model, without rotation in all other layers.

    Raises:
        ValueError: there are not as many as layers.
    """
    if len(rotated) != config.num_layers:
        raise ValueError(f"{len(rotated)} layers say if they rotate, of {config.num_layers}")
    if all(rotated):
        return config
    return dataclasses.replace(
        config,
        ropes=(*config.ropes, NO_ROTATION),
        layer_ropes=tuple(0 if turns else 1 for turns in rotated),
    )
