"""What one family of models is: how Hugging Face and llama.cpp write it down."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.gguf_family import Gguf
from adakd_jax.models.hf_values import HFConfig
from adakd_jax.models.rope_keys import ROPE_KEYS, RopeKeys


class Entry(NamedTuple):
    """One parameter of ours and the tensors that hold it.

    `path` is dotted; `name` has `{layer}` where the parameter is stacked over layers, and
    `{expert}` where also over experts, with a tensor for each. `transpose` turns the [out, in] of
    torch's Linear into our [in, out]. Of a tensor that holds the outputs of
    several parameters, `part` says in which order; `by_head`: for one head after the other, not
    for all heads at once; `by_turns`: one output of each after the other. `of_experts`: the tensor
    holds all experts, first, of which each is transposed by itself.
    """

    path: str
    name: str
    transpose: bool = False
    part: int = 0
    by_head: bool = False
    by_turns: bool = False
    of_experts: bool = False

    @property
    def stacked(self) -> bool:
        """Whether there is one tensor per layer."""
        return "{layer}" in self.name

    @property
    def stacks(self) -> int:
        """How many dimensions of ours are numbers in the name: layers, and experts."""
        return ("{layer}" in self.name) + ("{expert}" in self.name)

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


def expert_keys(
    block: str, gate: str = "gate_proj", up: str = "up_proj", down: str = "down_proj"
) -> tuple[Entry, ...]:
    """Llama's keys with a router and a tensor for each expert in place of the feed-forward.

    Args:
        block: Hugging Face's name of the feed-forward.
        gate: and of its matrices.
        up: see `gate`.
        down: see `gate`.
    """
    names = {"gate": gate, "up": up, "down": down}
    return (
        *(entry for entry in LLAMA_KEYS if not entry.path.startswith("layers.ffw.")),
        Entry("layers.ffw.router.weight", f"{LAYER}{block}.gate.weight", transpose=True),
        *(
            Entry(
                f"layers.ffw.experts.{ours}.kernel",
                f"{LAYER}{block}.experts.{{expert}}.{theirs}.weight",
                transpose=True,
            )
            for ours, theirs in names.items()
        ),
    )


def _nothing_else(config: HFConfig, layers: Sequence[int]) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Family:
    """One `model_type` of Hugging Face.

    Attributes:
        model_type: as config.json names it.
        architecture: the class of transformers that config.json names.
        read: from a config.json, whose values are of the right kinds, to the decoder.
        keys: every parameter that a model of the family may have, and its tensors.
        gguf: the family in llama.cpp's files; None: it is not read from them.
        rope: how config.json states rotary positions.
        select: what else config.json says of a model that keeps some of the layers: from the whole
            model's and the numbers of the layers to values by their keys.
    """

    model_type: str
    architecture: str
    read: Callable[[HFConfig], DecoderConfig]
    keys: tuple[Entry, ...] = LLAMA_KEYS
    gguf: Gguf | None = None
    rope: RopeKeys = ROPE_KEYS
    select: Callable[[HFConfig, Sequence[int]], dict[str, Any]] = _nothing_else
