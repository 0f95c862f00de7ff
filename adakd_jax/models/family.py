"""What one family of models is: how Hugging Face and llama.cpp write it down."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.hf_values import HFConfig


class Entry(NamedTuple):
    """One parameter of ours and the tensors that hold it.

    `path` is dotted; `name` has `{layer}` where the parameter is stacked over layers. `transpose`
    turns the [out, in] of torch's Linear into our [in, out]. Of a tensor that holds the outputs of
    several parameters, `part` says in which order; `by_head`: for one head after the other, not
    for all heads at once.
    """

    path: str
    name: str
    transpose: bool = False
    part: int = 0
    by_head: bool = False

    @property
    def stacked(self) -> bool:
        """Whether there is one tensor per layer."""
        return "{layer}" in self.name

    @property
    def block(self) -> str:
        """The part of the model that it is in; of a layer, where it is stacked."""
        return self.path.split(".")[1 if self.stacked else 0]


def linear(
    path: str, name: str, *, transpose: bool = True, part: int = 0, by_head: bool = False
) -> list[Entry]:
    """Kernel and bias of a matrix product."""
    return [
        Entry(f"{path}.kernel", f"{name}.weight", transpose, part, by_head),
        Entry(f"{path}.bias", f"{name}.bias", False, part, by_head),
    ]


def fused(paths: Sequence[str], name: str, **options: bool) -> list[Entry]:
    """Kernels and biases of several matrix products that are one tensor; see `linear`."""
    return [
        entry
        for part, path in enumerate(paths)
        for entry in linear(path, name, part=part, **options)
    ]


QKV = ("layers.attn.query", "layers.attn.key", "layers.attn.value")


def norm(path: str, name: str) -> list[Entry]:
    """Scale and bias of a norm."""
    return [Entry(f"{path}.scale", f"{name}.weight"), Entry(f"{path}.bias", f"{name}.bias")]


LAYER = "model.layers.{layer}."
# What nearly all families after GPT-2 call alike: all but the norms around the feed-forward.
SHARED_KEYS = (
    Entry("embed.embedding", "model.embed_tokens.weight"),
    Entry("head.embedding", "lm_head.weight"),
    *norm("final_norm", "model.norm"),
    *norm("layers.attn_norm", LAYER + "input_layernorm"),
    *linear("layers.attn.query", LAYER + "self_attn.q_proj"),
    *linear("layers.attn.key", LAYER + "self_attn.k_proj"),
    *linear("layers.attn.value", LAYER + "self_attn.v_proj"),
    *linear("layers.attn.out", LAYER + "self_attn.o_proj"),
    *norm("layers.attn.query_norm", LAYER + "self_attn.q_norm"),
    *norm("layers.attn.key_norm", LAYER + "self_attn.k_norm"),
    *linear("layers.ffw.gate", LAYER + "mlp.gate_proj"),
    *linear("layers.ffw.up", LAYER + "mlp.up_proj"),
    *linear("layers.ffw.down", LAYER + "mlp.down_proj"),
)
LLAMA_KEYS = (*SHARED_KEYS, *norm("layers.ffw_norm", LAYER + "post_attention_layernorm"))

# llama.cpp's names of tensors in a layer, and Hugging Face's.
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


def _nothing(metadata: Mapping[str, Any], config: HFConfig) -> dict[str, Any]:
    return {}


def _as_it_is(name: str, values: np.ndarray, config: HFConfig) -> np.ndarray:
    return values


@dataclass(frozen=True)
class Gguf:
    """A family in llama.cpp's files.

    Attributes:
        architecture: its name there, `general.architecture`.
        stated: what config.json states beyond sizes and rotary positions.
        read: what else config.json states, from the metadata of a file and the config.json so far.
        names: of tensors in a layer → Hugging Face's.
        restore: from a tensor's Hugging Face name, its values and config.json to the values that
            Hugging Face has.
    """

    architecture: str
    stated: Mapping[str, Any]
    read: Callable[[Mapping[str, Any], HFConfig], dict[str, Any]] = _nothing
    names: Mapping[str, str] = dataclasses.field(default_factory=lambda: GGUF_NAMES)
    restore: Callable[[str, np.ndarray, HFConfig], np.ndarray] = _as_it_is


@dataclass(frozen=True)
class Family:
    """One `model_type` of Hugging Face.

    Attributes:
        model_type: as config.json names it.
        architecture: the class of transformers that config.json names.
        read: from a config.json, whose values are of the right kinds, to the decoder.
        keys: every parameter that a model of the family may have, and its tensors.
        gguf: the family in llama.cpp's files; None: it is not read from them.
        ropes_by_layer_type: whether `rope_parameters` has a set for each layer type.
    """

    model_type: str
    architecture: str
    read: Callable[[HFConfig], DecoderConfig]
    keys: tuple[Entry, ...] = LLAMA_KEYS
    gguf: Gguf | None = None
    ropes_by_layer_type: bool = False
