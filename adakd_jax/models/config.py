"""The static description of a decoder: everything that is known before any weight is."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from adakd_jax.models.layer_sizes import DeltaNetSizes, PerLayerInputs, WideHeads
from adakd_jax.models.rotations import QueryScale, Rope

Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu2"]
Norm = Literal["rms", "rms_one_plus", "layer", "layer_without_bias"]
# Over each head, or over all heads together.
QkNorm = Literal["head", "width"]
# Attention and feed-forward both of a layer's input: after a norm each, or after the same.
Parallel = Literal["two_norms", "one_norm"]
Remat = Literal["none", "full", "dots"]
ComputeDtype = Literal["float32", "bfloat16", "float16"]
AttentionImplementation = Literal["xla", "cudnn", "triton", "splash"]
# What mixes the tokens of a layer, by the name of its parameters: attention, a gated delta net,
# attention with wide heads, or either attention with the keys and values of an earlier layer.
Mixer = Literal["attn", "delta", "wide", "reader", "wide_reader"]
# Whose keys and values a mixer reads: those of the last such layer before it.
SOURCES: Mapping[Mixer, Mixer] = {"reader": "attn", "wide_reader": "wide"}
# The matrix products of a layer, by their path inside it.
PROJECTIONS = (
    *("attn.query", "attn.key", "attn.value", "attn.out", "ffw.gate", "ffw.up", "ffw.down"),
    "attn.gate",
    *("delta.query", "delta.key", "delta.value", "delta.gate"),
    *("delta.write", "delta.decay", "delta.out"),
    *("wide.query", "wide.key", "wide.value", "wide.out"),
    *("reader.query", "reader.out", "wide_reader.query", "wide_reader.out"),
    *("reader_ffw.gate", "reader_ffw.up", "reader_ffw.down"),
    *("per_layer.gate", "per_layer.out"),
)


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters of every layer: y = x·W + (α/r)·dropout(x)·A·B.

    `rank` is r, `alpha` α, `dropout` the share of x's values that are zeroed in training, in
    [0, 1); `targets` are the adapted ones of `PROJECTIONS`.
    """

    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: names every field that is out of range.
        """
        problems = []
        if self.rank < 1:
            problems.append(f"rank is {self.rank}, must be ≥ 1")
        if not self.alpha > 0:
            problems.append(f"alpha is {self.alpha}, must be > 0")
        if not 0 <= self.dropout < 1:
            problems.append(f"dropout is {self.dropout}, must lie in [0, 1)")
        if not self.targets or not set(self.targets) <= set(PROJECTIONS):
            problems.append(f"targets are {self.targets}, must be some of {PROJECTIONS}")
        if problems:
            raise ValueError("Lora: " + "; ".join(problems))

    @property
    def scale(self) -> float:
        """α/r."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class ClampedSwiglu:
    """(up + 1) · gate · sigmoid(gain · gate), of a gate cut to ≤ `limit` and an up to ± `limit`."""

    gain: float
    limit: float


@dataclass(frozen=True)
class Experts:
    """The experts of every layer: feed-forwards of `dim` each, or of `DecoderConfig.ffw_dim`.

    Of `count`, each token has the `active` ones with the highest scores of the router. Their
    weights are the softmax of all scores (arXiv 2101.03961), or, `renormalised`, of theirs (arXiv
    2401.04088). `shared_dim` is the width of an expert that all tokens have besides, or None.
    With `beside_dense`, they stand beside the dense feed-forward, see `experts_beside`, and not in
    its place. `balance_weight` is that of the load-balancing loss, where the model is trained.
    """

    count: int
    active: int
    renormalised: bool
    router_bias: bool = False
    shared_dim: int | None = None
    dim: int | None = None
    beside_dense: bool = False
    clamped: ClampedSwiglu | None = None
    balance_weight: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: a number is out of range.
        """
        if not 1 <= self.active <= self.count:
            raise ValueError(
                f"Experts: {self.active} active ones of {self.count}; valid: 1 to {self.count}"
            )


@dataclass(frozen=True)
class DecoderConfig:
    """One decoder-only transformer; `families.decoder_config` makes it from a Hugging Face
    `config.json`.

    `windows[l]` is how many positions layer l sees, itself included (None: all before it);
    `ropes[layer_ropes[l]]` are its rotary frequencies, and an empty `ropes` means learned position
    embeddings, the first of which is in row `position_offset`. `rotary_dim` numbers of a head are
    rotated, the first ones (None: all), in pairs of neighbours or of halves. `residual_scale`
    multiplies what a branch adds. With `attention_sinks`, each head has a score of its own that it
    gives to nothing (arXiv 2309.17453). `experts` are in the place of each layer's feed-forward, or
    beside it, or None. `mixers[l]` mixes the tokens of layer l (empty: attention, in all of them),
    `delta_net` has the sizes of those that are delta nets, `wide` those of wide heads, and where
    `attention_gate`, a sigmoid of a layer's input multiplies what attention gives. Layers that read
    another's keys and values have feed-forwards of `reader_ffw_dim` (None: as all have).
    `value_norm` divides values by their root mean square. With `per_layer`, each layer adds what it
    makes of inputs of its own; with `layer_scalar`, a number multiplies what leaves it. `lora` are
    adapters beside the weights, or None. The last three fields say how to compute, not what: change
    them with `dataclasses.replace` at will.
    """

    family: str
    vocab_size: int
    embed_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffw_dim: int
    max_positions: int
    windows: tuple[int | None, ...]
    ropes: tuple[Rope, ...] = (Rope(),)
    layer_ropes: tuple[int, ...] = ()
    activation: Activation = "silu"
    gated_ffw: bool = True
    norm: Norm = "rms"
    norm_eps: float = 1e-6
    qkv_bias: bool = False
    out_bias: bool = False
    ffw_bias: bool = False
    qk_norm: QkNorm | None = None
    pre_norms: bool = True
    post_norms: bool = False
    parallel: Parallel | None = None
    rotary_dim: int | None = None
    rotates_neighbours: bool = False
    query_scale: QueryScale | None = None
    position_offset: int = 0
    tied: bool = False
    attention_scale: float = 1.0
    attention_soft_cap: float | None = None
    attention_sinks: bool = False
    logit_soft_cap: float | None = None
    embed_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    initializer_range: float = 0.02
    experts: Experts | None = None
    mixers: tuple[Mixer, ...] = ()
    delta_net: DeltaNetSizes | None = None
    attention_gate: bool = False
    wide: WideHeads | None = None
    reader_ffw_dim: int | None = None
    value_norm: bool = False
    per_layer: PerLayerInputs | None = None
    layer_scalar: bool = False
    lora: Lora | None = None
    compute_dtype: ComputeDtype = "float32"
    remat: Remat = "none"
    attention_implementation: AttentionImplementation | None = None

    def __post_init__(self) -> None:
        """Check what no layer could check for itself.

        Raises:
            ValueError: names every field that does not fit.
        """
        problems = [*self._size_problems(), *self._layer_problems()]
        if problems:
            raise ValueError("DecoderConfig: " + "; ".join(problems))

    def _size_problems(self) -> list[str]:
        problems = [
            f"{field.name} is {value}, must be ≥ 1"
            for field in dataclasses.fields(self)
            if field.default is dataclasses.MISSING
            and field.type is int
            and (value := getattr(self, field.name)) < 1
        ]
        if not problems and self.num_heads % self.num_kv_heads:
            problems.append(
                f"num_heads {self.num_heads} is no multiple of num_kv_heads {self.num_kv_heads}"
            )
        rotated = self.head_dim if self.rotary_dim is None else self.rotary_dim
        if self.ropes and (rotated % 2 or not 0 < rotated <= self.head_dim):
            name = "head_dim" if self.rotary_dim is None else "rotary_dim"
            problems.append(
                f"{name} {rotated} must be even for rotary positions, and at most {self.head_dim}"
            )
        problems += [
            f"longrope has {len(factors)} factors, must be half of the {rotated} rotated numbers"
            for rope in self.ropes
            if rope.kind == "longrope"
            for factors in (rope.short_factors, rope.long_factors)
            if 2 * len(factors) != rotated
        ]
        return problems

    def _layer_problems(self) -> list[str]:
        problems = []
        if len(self.windows) != self.num_layers:
            problems.append(f"windows has {len(self.windows)} entries for {self.num_layers} layers")
        if any(window is not None and window < 1 for window in self.windows):
            problems.append(f"windows must be None or ≥ 1, got {self.windows}")
        if len(self.mixers) not in (0, self.num_layers):
            problems.append(f"mixers has {len(self.mixers)} entries for {self.num_layers} layers")
        if "delta" in self.mixers and self.delta_net is None:
            problems.append("mixers has delta, which needs delta_net")
        if {"wide", "wide_reader"} & set(self.mixers) and self.wide is None:
            problems.append("mixers has wide heads, which need wide")
        if self.wide is not None:
            problems += self.wide.problems(self.num_heads)
        for layer, mixer in enumerate(self.mixers):
            source = SOURCES.get(mixer)
            if source and source not in self.mixers[:layer]:
                problems.append(f"layer {layer} is a {mixer}, with no {source} before it")
        expected = self.num_layers if len(self.ropes) > 1 else 0
        if len(self.layer_ropes) != expected:
            problems.append(
                f"layer_ropes has {len(self.layer_ropes)} entries, "
                f"{len(self.ropes)} ropes need {expected}"
            )
        if any(not 0 <= rope < len(self.ropes) for rope in self.layer_ropes):
            problems.append(
                f"layer_ropes must lie in 0..{len(self.ropes) - 1}, got {self.layer_ropes}"
            )
        return problems

    @property
    def window_choices(self) -> tuple[int | None, ...]:
        """The distinct windows, in order of first use."""
        return tuple(dict.fromkeys(self.windows))
