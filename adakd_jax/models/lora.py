"""Low-rank adapters beside a layer's projections, and trees of parameters with and without them."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from adakd_jax.models.config import PROJECTIONS, DecoderConfig, Lora
from adakd_jax.models.dropout import dropout

ADAPTER = "adapter"
# Projections of one input.
_SHARED = (
    ("attn.query", "attn.key", "attn.value", "attn.gate"),
    ("ffw.gate", "ffw.up"),
    ("delta.query", "delta.key", "delta.value", "delta.gate", "delta.write", "delta.decay"),
    ("wide.query", "wide.key", "wide.value"),
    ("reader_ffw.gate", "reader_ffw.up"),
)
Params = dict[str, Any]


class Adapter(nnx.Module):
    """(α/r)·dropout(x)·A·B, A [in, r] and B [r, out] in float32, computed in x's dtype.

    A starts uniform in ±1/√in (Kaiming's, as in PEFT), B at 0: a new adapter changes nothing.
    """

    def __init__(self, size: tuple[int, int], lora: Lora, path: str, *, rngs: nnx.Rngs) -> None:
        bound = size[0] ** -0.5
        shape = (size[0], lora.rank)
        self.a = nnx.Param(jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound))
        self.b = nnx.Param(jnp.zeros((lora.rank, size[1])))
        self.scale, self.dropout = lora.scale, lora.dropout
        first = next((shared[0] for shared in _SHARED if path in shared), path)
        self.number = PROJECTIONS.index(first)

    def __call__(
        self, x: Float[Array, "*lead D"], dropout_key: Array | None = None
    ) -> Float[Array, "*lead F"]:
        """What is added to the projection of x.

        Args:
            x: its input.
            dropout_key: of the layer; None: no dropout. Projections of one input (query, key and
                value; gate and up) drop the same of its values, where PEFT draws for each: every
                adapter sees the same distribution of masks, for half of the random numbers.
        """
        # The backward pass computes mask and products again: kept, [.., out] would be in memory
        # twice, and these are cheap.
        return jax.checkpoint(self._update, prevent_cse=False)(
            x, self.a[...], self.b[...], dropout_key
        )

    def _update(self, x: Array, a: Array, b: Array, dropout_key: Array | None) -> Array:
        if dropout_key is not None and self.dropout > 0:
            x = dropout(jax.random.fold_in(dropout_key, self.number), self.dropout, x)
        return ((x @ a.astype(x.dtype)) * self.scale) @ b.astype(x.dtype)


def adapter_of(
    config: DecoderConfig, path: str, size: tuple[int, int], *, rngs: nnx.Rngs
) -> Adapter | None:
    """The adapter of the projection `path`, one of `PROJECTIONS`; None if it has none."""
    lora = config.lora
    return Adapter(size, lora, path, rngs=rngs) if lora and path in lora.targets else None


def split_adapters(params: Params) -> tuple[Params, Params]:
    """The parameters without adapters, and the adapters alone; `combine` is the inverse."""
    flat = flatten_dict(params)
    base = {path: leaf for path, leaf in flat.items() if ADAPTER not in path}
    adapters = {path: leaf for path, leaf in flat.items() if ADAPTER in path}
    return unflatten_dict(base), unflatten_dict(adapters)


def combine(base: Params | None, trained: Params) -> Params:
    """All parameters of a model: those that are trained, in a frozen base if there is one."""
    return trained if base is None else unflatten_dict(flatten_dict(base) | flatten_dict(trained))


@jax.jit
def add_low_rank(
    kernel: Float[Array, "L D F"],
    a: Float[Array, "L D R"],
    b: Float[Array, "L R F"],
    scale: Float[Array, " L"],
) -> Float[Array, "L D F"]:
    """Kernel + scale·A·B layer by layer, computed in float32, in kernel's dtype."""
    wide = kernel.astype(jnp.float32)
    low = jnp.einsum(
        "LDR,LRF->LDF", a.astype(jnp.float32), b.astype(jnp.float32), precision="highest"
    )
    return (wide + scale.astype(jnp.float32)[:, None, None] * low).astype(kernel.dtype)


def merge_adapters(params: Params, lora: Lora) -> Params:
    """Parameters of the same model without adapters: W + (α/r)·A·B, all in float32."""
    base, adapters = split_adapters(params)
    merged = flatten_dict(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), base))
    flat: dict[Any, Any] = flatten_dict(adapters)
    for path in {path[:-1] for path in flat}:
        kernel, a, b = (*path[:-1], "kernel"), flat[*path, "a"], flat[*path, "b"]
        scale = jnp.full(a.shape[:1], lora.scale, jnp.float32)
        merged[kernel] = add_low_rank(merged[kernel], a, b, scale)
    return unflatten_dict(merged)
