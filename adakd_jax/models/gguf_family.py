"""How llama.cpp's files write a family down."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from adakd_jax.models.hf_values import HFConfig

Metadata = Mapping[str, Any]

# llama.cpp's names, and Hugging Face's: of tensors outside of the layers, and of those in a layer.
GGUF_OUTSIDE = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
GGUF_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# The keys of config.json, and of the metadata after the architecture's name.
GGUF_SIZES = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
LAYER_NORM_SIZES = {key: own for key, own in GGUF_SIZES.items() if key != "rms_norm_eps"} | {
    "layer_norm_eps": "attention.layer_norm_epsilon"
}
EXPERT_SIZES = GGUF_SIZES | {
    "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
}


def _nothing(metadata: Metadata, config: HFConfig) -> dict[str, Any]:
    return {}


def _nothing_seen(
    config: HFConfig, shapes: Mapping[str, tuple[int, ...]], divisors: np.ndarray | None
) -> dict[str, Any]:
    return {}


def _as_it_is(name: str, values: np.ndarray, config: HFConfig) -> np.ndarray:
    return values


def _any(metadata: Metadata) -> bool:
    return True


class Join(NamedTuple):
    """Tensors there that are one on Hugging Face.

    `names` are theirs, in order; `axis` is the dimension that is as long as all of theirs together.
    `values` makes the one, from theirs in that order and config.json; a tensor that is alone in a
    file is the one already.
    """

    names: tuple[str, ...]
    axis: int
    values: Callable[[Sequence[np.ndarray], HFConfig], np.ndarray]


def by_turns(parts: Sequence[np.ndarray], config: HFConfig) -> np.ndarray:
    """One number of each along the last dimension, and so on."""
    joined = np.stack(parts, axis=-1)
    return joined.reshape(*joined.shape[:-2], -1)


@dataclass(frozen=True)
class Gguf:
    """A family in llama.cpp's files.

    Attributes:
        architecture: its name there, `general.architecture`.
        stated: what config.json states beyond sizes and rotary positions.
        fits: of several families with one architecture, whether a file's metadata are of this one.
        read: what else config.json states, from the metadata of a file and the config.json so far.
        look: what else only its tensors show, from the config.json so far, their shapes under
            llama.cpp's names, and the divisors of rotary frequencies, None without.
        sizes: keys of config.json → keys of the metadata that a file must have.
        states_heads: whether config.json states the heads of keys and the size of a head.
        rotates: whether positions are rotary.
        outside: names of tensors outside of layers → Hugging Face's.
        layer: what the names of a layer's tensors begin with on Hugging Face.
        names: of tensors in a layer → Hugging Face's; one with `{expert}` holds those of all
            experts.
        full_name: from a tensor's name on Hugging Face and its kind, `weight` or `bias`, to its
            full name there.
        join: the tensors that are one on Hugging Face; None: there are none.
        ranks: of tensors that llama.cpp stores without a dimension of 1 before the last, how many
            dimensions they have with it.
        transposes: whether the matrices of layers are the other way around on Hugging Face.
        transposes_experts: whether those of all experts are.
        restore: from a tensor's Hugging Face name, its values and config.json to the values that
            Hugging Face has.
    """

    architecture: str
    stated: Mapping[str, Any]
    fits: Callable[[Metadata], bool] = _any
    read: Callable[[Metadata, HFConfig], dict[str, Any]] = _nothing
    look: Callable[[HFConfig, Mapping[str, tuple[int, ...]], np.ndarray | None], dict[str, Any]] = (
        _nothing_seen
    )
    sizes: Mapping[str, str] = dataclasses.field(default_factory=lambda: GGUF_SIZES)
    states_heads: bool = True
    rotates: bool = True
    outside: Mapping[str, str] = dataclasses.field(default_factory=lambda: GGUF_OUTSIDE)
    layer: str = "model.layers.{layer}."
    names: Mapping[str, str] = dataclasses.field(default_factory=lambda: GGUF_NAMES)
    full_name: Callable[[str, str], str] = "{}.{}".format
    join: Join | None = None
    ranks: Mapping[str, int] = dataclasses.field(default_factory=dict)
    transposes: bool = False
    transposes_experts: bool = True
    restore: Callable[[str, np.ndarray, HFConfig], np.ndarray] = _as_it_is


def outside_names(embed: str, norm: str, head: str, **more: str) -> dict[str, str]:
    """`GGUF_OUTSIDE` in other words."""
    return {"token_embd": embed, "output_norm": norm, "output": head} | more


def fused_names(
    norms: tuple[str, str], attention: tuple[str, str], ffw: tuple[str, str]
) -> dict[str, str]:
    """`GGUF_NAMES` of a family with one projection to queries, keys and values, and no gate."""
    stored = ("attn_norm", "ffn_norm", "attn_qkv", "attn_output", "ffn_up", "ffn_down")
    return dict(zip(stored, (*norms, *attention, *ffw), strict=True))


def expert_names(
    block: str, gate: str = "gate_proj", up: str = "up_proj", down: str = "down_proj"
) -> dict[str, str]:
    """`GGUF_NAMES` of a family with experts in place of the feed-forward."""
    shared = {name: own for name, own in GGUF_NAMES.items() if not own.startswith("mlp.")}
    return shared | {
        "ffn_gate_inp": f"{block}.gate",
        "ffn_gate_exps": f"{block}.experts.{{expert}}.{gate}",
        "ffn_up_exps": f"{block}.experts.{{expert}}.{up}",
        "ffn_down_exps": f"{block}.experts.{{expert}}.{down}",
    }
