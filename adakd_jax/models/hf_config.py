"""What the config.json files of many families have in common."""

from collections.abc import Sequence

from adakd_jax.models.config import Activation, DecoderConfig
from adakd_jax.models.hf_values import HFConfig, require
from adakd_jax.models.rope_keys import LAYER_TYPES, LOCAL, read_rope, read_ropes

ACTIVATION_NAMES: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
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
    ropes_differ: bool = False,
) -> DecoderConfig:
    """What families after GPT-2 write alike; the keywords are the family's own defaults.

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
        ropes=read_ropes(hf) if ropes_differ else (read_rope(hf),),
        layer_ropes=(0,) * layers if ropes_differ else (),
        activation=read_activation(
            hf.get("hidden_activation") or hf.get("hidden_act") or default_activation
        ),
        norm_eps=hf.get("rms_norm_eps", 1e-6),
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


def every(pattern: int, layers: int) -> list[str]:
    """Kinds of layers where each `pattern`-th sees everything, the others a window."""
    return [LAYER_TYPES[bool((layer + 1) % pattern)] for layer in range(layers)]
