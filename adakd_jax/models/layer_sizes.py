"""Sizes of what only some families have in their layers."""

from dataclasses import dataclass

from adakd_jax.models.rotations import Rope


@dataclass(frozen=True)
class DeltaNetSizes:
    """Of gated delta nets (arXiv 2412.06464): heads of queries and keys, each with as many heads of
    values; numbers of a head; tokens that the causal convolution sees, its own included.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            ValueError: names every one that does not fit.
        """
        problems = [f"{name} is {n}, must be ≥ 1" for name, n in vars(self).items() if n < 1]
        if not problems and self.value_heads % self.key_heads:
            problems.append(
                f"value_heads {self.value_heads} is no multiple of key_heads {self.key_heads}"
            )
        if problems:
            raise ValueError("DeltaNetSizes: " + "; ".join(problems))


@dataclass(frozen=True)
class WideHeads:
    """Heads of a size of their own: `head_dim` numbers each, `num_kv_heads` of keys, whose rotary
    frequencies are `rope`. With `values_are_keys`, values are what keys are before norm and
    rotation.
    """

    head_dim: int
    num_kv_heads: int
    values_are_keys: bool
    rope: Rope

    def problems(self, num_heads: int) -> list[str]:
        """What does not fit, by field."""
        found = []
        if self.head_dim < 2 or self.head_dim % 2:
            found.append(f"wide.head_dim is {self.head_dim}, must be even and ≥ 2")
        if self.num_kv_heads < 1 or num_heads % self.num_kv_heads:
            found.append(
                f"num_heads {num_heads} is no multiple of wide.num_kv_heads {self.num_kv_heads}"
            )
        return found


@dataclass(frozen=True)
class PerLayerInputs:
    """`dim` numbers of each token for each layer, from a table of `vocab_size` rows and from the
    token's embedding.
    """

    dim: int
    vocab_size: int
