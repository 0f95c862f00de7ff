"""Checks of a config.json's values by which each family is read."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

HFConfig = Mapping[str, Any]

_COUNTS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "sliding_window",
    "shared_intermediate_size",
    "shared_expert_intermediate_size",
    "no_rope_layer_interval",
    "ffn_dim",
    "n_embd",
    "n_layer",
    "n_head",
    "n_inner",
    "n_positions",
    "moe_intermediate_size",
    "num_experts",
    "num_experts_per_tok",
    "decoder_sparse_step",
    "full_attention_interval",
    "linear_num_key_heads",
    "linear_num_value_heads",
    "linear_key_head_dim",
    "linear_value_head_dim",
    "linear_conv_kernel_dim",
    "global_head_dim",
    "num_global_key_value_heads",
    "vocab_size_per_layer_input",
    "top_k_experts",
)
_COUNTS_OR_NONE = ("num_local_experts", "hidden_size_per_layer_input", "num_kv_shared_layers")
_NUMBERS = (
    "rope_theta",
    "rope_local_base_freq",
    "rms_norm_eps",
    "layer_norm_epsilon",
    "layer_norm_eps",
    "init_std",
    "rotary_emb_base",
    "rotary_pct",
    "embedding_multiplier",
    "attention_multiplier",
    "residual_multiplier",
    "logits_scaling",
    "logit_scale",
    "initializer_range",
    "query_pre_attn_scalar",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "max_window_layers",
    "partial_rotary_factor",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "clip_qkv",
    "swiglu_alpha",
    "swiglu_limit",
)
_SWITCHES = (
    "tie_word_embeddings",
    "attention_bias",
    "attention_out_bias",
    "mlp_bias",
    "use_bias",
    "use_parallel_residual",
    "do_layer_norm_before",
    "enable_bias",
    "layer_norm_elementwise_affine",
    "use_sliding_window",
    "scale_attn_weights",
    "norm_topk_prob",
    "attention_k_eq_v",
    "use_double_wide_mlp",
    "enable_moe_block",
)
_NAMES = ("hidden_act", "hidden_activation", "activation_function")
_OBJECTS = ("rope_scaling", "rope_parameters", "per_layer_config")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_count_or_none(value: Any) -> bool:
    return value == 0 or _is_count(value)


def _is_pattern(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value) and set(value) <= {"L", "G"}
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_switches(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(each in (0, 1) for each in value)


def _are_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)


_KINDS: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (_COUNTS, _is_count, "a whole number above 0"),
    (_NUMBERS, _is_number, "a number"),
    (_SWITCHES, lambda value: isinstance(value, bool), "true or false"),
    (_NAMES, lambda value: isinstance(value, str), "a name"),
    (_OBJECTS, lambda value: isinstance(value, Mapping), "an object {…}"),
    (("layer_types",), _are_names, "a list of names"),
    (_COUNTS_OR_NONE, _is_count_or_none, "a whole number"),
    (("no_rope_layers",), _are_switches, "a list of 0 and 1"),
    (("sliding_window_pattern",), _is_pattern, "a whole number, or letters such as LLLG"),
)


def check_kinds(hf: HFConfig) -> None:
    """Raise ValueError naming all keys whose values are of another kind; null is absence."""
    wrong = [
        f"{key} is {hf[key]!r}, valid: {valid}"
        for keys, fits, valid in _KINDS
        for key in keys
        if hf.get(key) is not None and not fits(hf[key])
    ]
    if wrong:
        raise ValueError(f"config.json: {'; '.join(wrong)}")


def require(hf: HFConfig, *keys: str) -> None:
    """Raise ValueError naming the keys that are absent or null."""
    missing = [key for key in keys if hf.get(key) is None]
    if missing:
        raise ValueError(f"config.json lacks {', '.join(missing)} (has: {', '.join(sorted(hf))})")


def refuse(hf: HFConfig, *keys: str, valid: str = "false") -> None:
    """Raise ValueError for a key that is switched on; `valid` is what it may be."""
    for key in keys:
        if hf.get(key):
            raise ValueError(f"config.json: {key}={hf[key]!r} is not supported; valid: {valid}")


def shortest_decimal(value: Any) -> Any:
    """GGUF keeps float32: 1e-5 would read 9.9999997e-06, so take the shortest decimal instead."""
    return float(str(np.float32(value))) if isinstance(value, float) else value
