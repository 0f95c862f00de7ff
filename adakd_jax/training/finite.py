"""Whether a model's weights are numbers."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from adakd_jax.hf.pretrained import Pretrained

_SHOWN = 5


class NonFiniteWeightsError(ValueError):
    """A loaded model has weights that are NaN or infinite; the message names the parameters."""


def check_finite(model: Pretrained, who: str) -> None:
    """Refuse a model that makes every loss NaN, before anything is trained or compiled with it.

    Args:
        model: what was loaded, on one device or a mesh.
        who: its role, "teacher" or "student".

    Raises:
        NonFiniteWeightsError: names the parameters with a NaN or an infinity.

    Scope: all processes call this together.
    """
    finite = jax.device_get(_each_is_finite(model.params))
    broken = [
        ".".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path)
        for path, sound in jax.tree_util.tree_leaves_with_path(finite)
        if not sound
    ]
    if not broken:
        return
    shown = ", ".join(broken[:_SHOWN]) + (" …" if len(broken) > _SHOWN else "")
    raise NonFiniteWeightsError(
        f"the {who} {model.source.name} has weights that are NaN or infinite, in {len(broken)} of "
        f"{len(jax.tree.leaves(finite))} parameters: {shown}; valid: finite weights (in "
        f"{model.config.compute_dtype}). Download or convert it again"
    )


@jax.jit
def _each_is_finite(params: Any) -> Any:
    def all_finite(leaf: Array) -> Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.bool_(True)
        return jnp.isfinite(leaf).all()

    return jax.tree.map(all_finite, params)
