"""One table per family between our parameters and Hugging Face tensors, read both ways."""

import dataclasses
import re
from typing import Any, NamedTuple

import jax

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.decoder import abstract_decoder


class Entry(NamedTuple):
    """One parameter of ours and the tensors that hold it.

    `path` is dotted; `name` has `{layer}` where the parameter is stacked over layers. `transpose`
    turns the [out, in] of torch's Linear into our [in, out]. `part` i of `parts` says which third
    of a fused tensor's last axis it is.
    """

    path: str
    name: str
    transpose: bool = False
    part: int = 0
    parts: int = 1

    @property
    def stacked(self) -> bool:
        """Whether there is one tensor per layer."""
        return "{layer}" in self.name


class Parameter(NamedTuple):
    """A row of the table that this model uses: the entry and our shape and dtype."""

    entry: Entry
    shape: tuple[int, ...]
    dtype: Any

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """Shape of the (whole) tensor in the file."""
        shape = self.shape[1:] if self.entry.stacked else self.shape
        if self.entry.transpose:
            shape = shape[::-1]
        return (*shape[:-1], shape[-1] * self.entry.parts)


def _linear(
    path: str, name: str, *, transpose: bool = True, part: int = 0, parts: int = 1
) -> list[Entry]:
    return [
        Entry(f"{path}.kernel", f"{name}.weight", transpose, part, parts),
        Entry(f"{path}.bias", f"{name}.bias", False, part, parts),
    ]


def _norm(path: str, name: str) -> list[Entry]:
    return [Entry(f"{path}.scale", f"{name}.weight"), Entry(f"{path}.bias", f"{name}.bias")]


_GPT2_LAYER = "transformer.h.{layer}."
_GPT2 = (
    Entry("embed.embedding", "transformer.wte.weight"),
    Entry("position_embed.embedding", "transformer.wpe.weight"),
    Entry("head.embedding", "lm_head.weight"),
    *_norm("final_norm", "transformer.ln_f"),
    *_norm("layers.attn_norm", _GPT2_LAYER + "ln_1"),
    *_norm("layers.ffw_norm", _GPT2_LAYER + "ln_2"),
    # GPT-2's Conv1D stores [in, out] already, query, key and value side by side.
    *_linear("layers.attn.query", _GPT2_LAYER + "attn.c_attn", transpose=False, part=0, parts=3),
    *_linear("layers.attn.key", _GPT2_LAYER + "attn.c_attn", transpose=False, part=1, parts=3),
    *_linear("layers.attn.value", _GPT2_LAYER + "attn.c_attn", transpose=False, part=2, parts=3),
    *_linear("layers.attn.out", _GPT2_LAYER + "attn.c_proj", transpose=False),
    *_linear("layers.ffw.up", _GPT2_LAYER + "mlp.c_fc", transpose=False),
    *_linear("layers.ffw.down", _GPT2_LAYER + "mlp.c_proj", transpose=False),
)
_LAYER = "model.layers.{layer}."
_SHARED = (
    Entry("embed.embedding", "model.embed_tokens.weight"),
    Entry("head.embedding", "lm_head.weight"),
    *_norm("final_norm", "model.norm"),
    *_norm("layers.attn_norm", _LAYER + "input_layernorm"),
    *_linear("layers.attn.query", _LAYER + "self_attn.q_proj"),
    *_linear("layers.attn.key", _LAYER + "self_attn.k_proj"),
    *_linear("layers.attn.value", _LAYER + "self_attn.v_proj"),
    *_linear("layers.attn.out", _LAYER + "self_attn.o_proj"),
    *_norm("layers.attn.query_norm", _LAYER + "self_attn.q_norm"),
    *_norm("layers.attn.key_norm", _LAYER + "self_attn.k_norm"),
    *_linear("layers.ffw.gate", _LAYER + "mlp.gate_proj"),
    *_linear("layers.ffw.up", _LAYER + "mlp.up_proj"),
    *_linear("layers.ffw.down", _LAYER + "mlp.down_proj"),
)
_LLAMA = (*_SHARED, *_norm("layers.ffw_norm", _LAYER + "post_attention_layernorm"))
# Gemma uses for a norm after attention the name that Llama uses for the one before the
# feed-forward.
_GEMMA = (
    *_SHARED,
    *_norm("layers.post_attn_norm", _LAYER + "post_attention_layernorm"),
    *_norm("layers.ffw_norm", _LAYER + "pre_feedforward_layernorm"),
    *_norm("layers.post_ffw_norm", _LAYER + "post_feedforward_layernorm"),
)
KEYMAPS: dict[str, tuple[Entry, ...]] = {
    "gpt2": _GPT2,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
}
# A file saved from the bare model, without its head, lacks this part of every name.
OPTIONAL_PREFIXES = ("model.", "transformer.")
# Buffers that older files carry: constants, not weights.
_HARMLESS = (r"rotary_emb\.inv_freq$", r"\.attn\.(bias|masked_bias)$")


def is_harmless(name: str) -> bool:
    """Whether a tensor is a buffer that is not read."""
    return any(re.search(known, name) for known in _HARMLESS)


def parameters(config: DecoderConfig) -> list[Parameter]:
    """The rows of the family's table that this model has, with our shapes; every parameter is in
    exactly one row.

    Raises:
        ValueError: the table lacks a parameter of the model.
    """
    _, abstract = abstract_decoder(config)
    leaves = {
        ".".join(key.key for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)
    }
    rows = [
        Parameter(entry, leaves[entry.path].shape, leaves[entry.path].dtype)
        for entry in KEYMAPS[config.family]
        if entry.path in leaves
    ]
    lacking = sorted(set(leaves) - {row.entry.path for row in rows})
    if lacking:
        raise ValueError(f"the key table of {config.family} has no row for {', '.join(lacking)}")
    return rows


def tensor_names(row: Parameter) -> list[str]:
    """Names of the row's tensors, one per layer where it is stacked."""
    if not row.entry.stacked:
        return [row.entry.name]
    return [row.entry.name.format(layer=layer) for layer in range(row.shape[0])]


class Projection(NamedTuple):
    """A matrix product of a layer as Hugging Face knows it, with `{layer}` in its name.

    `paths` are ours, such as `attn.query`: several, in the order of its outputs, where it is fused.
    `size` is [in, out] of the whole.
    """

    name: str
    paths: tuple[str, ...]
    size: tuple[int, int]

    @property
    def module(self) -> str:
        """Its name inside a layer, such as `self_attn.q_proj`."""
        return self.name.partition("{layer}.")[2]

    def is_called(self, name: str) -> bool:
        """Whether `name`, such as `q_proj`, means this projection among others."""
        return f".{self.module}".endswith(f".{name}")


def projections(config: DecoderConfig) -> list[Projection]:
    """The matrix products of every layer of this model, in the order of the key table."""
    found: dict[str, Projection] = {}
    for row in parameters(dataclasses.replace(config, lora=None)):
        path, _, kind = row.entry.path.removeprefix("layers.").rpartition(".")
        if row.entry.stacked and kind == "kernel":
            name = row.entry.name.removesuffix(".weight")
            before = found[name].paths if name in found else ()
            size = (row.shape[1], row.shape[2] * row.entry.parts)
            found[name] = Projection(name, (*before, path), size)
    return list(found.values())
