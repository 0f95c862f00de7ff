"""How each family configures the one decoder: `config.json` in, `DecoderConfig` out."""

import dataclasses
from collections.abc import Callable

from adakd_jax.models.config import Activation, DecoderConfig
from adakd_jax.models.hf_values import HFConfig, check_kinds, refuse, require
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


def decoder_config(hf_config: HFConfig) -> DecoderConfig:
    """Read a `config.json`, of transformers 4 or 5.

    Args:
        hf_config: the parsed file. A key that is absent has the family's default in transformers.

    Returns:
        the decoder's configuration, to compute in float32 without rematerialisation.

    Raises:
        ValueError: the family, activation, RoPE type or layer type is not supported, with a list of
            those that are; or a required key is missing, or a value of another kind.
    """
    family = hf_config.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        hint = "; for Gemma 3 with vision, use its text model" if family == "gemma3" else ""
        raise ValueError(
            f"model_type {family!r} is not supported; valid: {', '.join(FAMILIES)}{hint}"
        )
    check_kinds(hf_config)
    return FAMILIES[family](hf_config)


def _gpt2(hf: HFConfig) -> DecoderConfig:
    require(hf, "vocab_size", "n_embd", "n_layer", "n_head", "n_positions")
    refuse(hf, "scale_attn_by_inverse_layer_idx", "add_cross_attention")
    head_dim = hf["n_embd"] // hf["n_head"]
    return DecoderConfig(
        family="gpt2",
        vocab_size=hf["vocab_size"],
        embed_dim=hf["n_embd"],
        num_layers=hf["n_layer"],
        num_heads=hf["n_head"],
        num_kv_heads=hf["n_head"],
        head_dim=head_dim,
        ffw_dim=hf.get("n_inner") or 4 * hf["n_embd"],
        max_positions=hf["n_positions"],
        windows=(None,) * hf["n_layer"],
        ropes=(),
        activation=_activation(hf.get("activation_function", "gelu_new")),
        gated_ffw=False,
        norm="layer",
        norm_eps=hf.get("layer_norm_epsilon", 1e-5),
        qkv_bias=True,
        out_bias=True,
        ffw_bias=True,
        tied=hf.get("tie_word_embeddings", True),
        attention_scale=head_dim**-0.5 if hf.get("scale_attn_weights", True) else 1.0,
        initializer_range=hf.get("initializer_range", 0.02),
    )


def _llama(hf: HFConfig) -> DecoderConfig:
    bias = hf.get("attention_bias", False)
    ffw_bias = hf.get("mlp_bias", False)
    return dataclasses.replace(_common(hf), qkv_bias=bias, out_bias=bias, ffw_bias=ffw_bias)


def _mistral(hf: HFConfig) -> DecoderConfig:
    common = _common(hf, default_kv_heads=8)
    return dataclasses.replace(common, windows=_windows(hf, [LOCAL] * common.num_layers))


def _qwen2(hf: HFConfig) -> DecoderConfig:
    common = _common(hf)
    return dataclasses.replace(common, windows=_qwen_windows(hf), qkv_bias=True)


def _qwen3(hf: HFConfig) -> DecoderConfig:
    common = _common(hf, default_head_dim=128)
    bias = hf.get("attention_bias", False)
    return dataclasses.replace(
        common, windows=_qwen_windows(hf), qkv_bias=bias, out_bias=bias, qk_norm=True
    )


def _gemma2(hf: HFConfig) -> DecoderConfig:
    gemma = _gemma(hf)
    return dataclasses.replace(
        gemma,
        windows=_windows(hf, hf.get("layer_types") or _every(2, gemma.num_layers)),
        attention_soft_cap=hf.get("attn_logit_softcapping", 50.0),
        logit_soft_cap=hf.get("final_logit_softcapping", 30.0),
    )


def _gemma3(hf: HFConfig) -> DecoderConfig:
    gemma = _gemma(hf, ropes_differ=True)
    pattern = hf.get("sliding_window_pattern", 6)
    kinds = hf.get("layer_types") or _every(pattern, gemma.num_layers)
    return dataclasses.replace(
        gemma,
        windows=_windows(hf, kinds),
        layer_ropes=tuple(LAYER_TYPES.index(kind) for kind in kinds),
        attention_soft_cap=hf.get("attn_logit_softcapping"),
        logit_soft_cap=hf.get("final_logit_softcapping"),
        qk_norm=True,
    )


def _gemma(hf: HFConfig, *, ropes_differ: bool = False) -> DecoderConfig:
    """What Gemma 2 and 3 share."""
    refuse(hf, "use_bidirectional_attention")
    common = _common(
        hf,
        default_kv_heads=4,
        default_head_dim=256,
        default_tied=True,
        default_activation="gelu_pytorch_tanh",
        ropes_differ=ropes_differ,
    )
    bias = hf.get("attention_bias", False)
    return dataclasses.replace(
        common,
        norm="rms_one_plus",
        qkv_bias=bias,
        out_bias=bias,
        post_norms=True,
        attention_scale=hf.get("query_pre_attn_scalar", 256) ** -0.5,
        embed_scale=hf["hidden_size"] ** 0.5,
    )


FAMILIES: dict[str, Callable[[HFConfig], DecoderConfig]] = {
    "gpt2": _gpt2,
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
}


def _common(
    hf: HFConfig,
    *,
    default_kv_heads: int | None = None,
    default_head_dim: int | None = None,
    default_tied: bool = False,
    default_activation: str = "silu",
    ropes_differ: bool = False,
) -> DecoderConfig:
    """What families after GPT-2 write alike; the keywords are the family's own defaults."""
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
        activation=_activation(
            hf.get("hidden_activation") or hf.get("hidden_act") or default_activation
        ),
        norm_eps=hf.get("rms_norm_eps", 1e-6),
        tied=hf.get("tie_word_embeddings", default_tied),
        attention_scale=head_dim**-0.5,
        initializer_range=hf.get("initializer_range", 0.02),
    )


def _qwen_windows(hf: HFConfig) -> tuple[int | None, ...]:
    layers = hf["num_hidden_layers"]
    if not hf.get("use_sliding_window", False):
        return (None,) * layers
    first = hf.get("max_window_layers", 28)
    kinds = [LAYER_TYPES[layer >= first] for layer in range(layers)]
    return _windows(hf, hf.get("layer_types") or kinds)


def _every(pattern: int, layers: int) -> list[str]:
    """Gemma's rule: each `pattern`-th layer sees everything, the others a window."""
    return [LAYER_TYPES[bool((layer + 1) % pattern)] for layer in range(layers)]


def _windows(hf: HFConfig, kinds: list[str]) -> tuple[int | None, ...]:
    unknown = sorted(set(kinds) - set(LAYER_TYPES))
    if unknown:
        raise ValueError(
            f"layer_types {unknown} are not supported; valid: {', '.join(LAYER_TYPES)}"
        )
    window = hf.get("sliding_window", 4096)
    return tuple(window if kind == LOCAL else None for kind in kinds)


def _activation(name: str) -> Activation:
    if name not in ACTIVATION_NAMES:
        raise ValueError(
            f"activation {name!r} is not supported; valid: {', '.join(ACTIVATION_NAMES)}"
        )
    return ACTIVATION_NAMES[name]
