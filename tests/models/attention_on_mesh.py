"""Attention kernels on meshes of eight devices: `python -m tests.models.attention_on_mesh`.

Eight devices need a process of their own. Prints the largest difference from XLA's attention on one
device, of values and gradients, by kernel and name of the case, as JSON.
"""

import functools
import json
import os

from tests.own_process import with_devices

if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = with_devices(8)

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

from adakd_jax.models.attention import attention
from adakd_jax.models.attention_kernels import attention_cudnn, attention_splash
from adakd_jax.models.attention_mask import LayerWindow
from adakd_jax.models.attention_triton import attention_triton

LENGTH, HEAD_DIM = 20, 8
# Mesh, rows, query heads, key-value heads.
CASES = {
    "all divide": ((2, 2, 2), 4, 4, 2),
    "key-value heads are repeated": ((2, 1, 4), 2, 4, 2),
    "rows and heads do not divide": ((2, 2, 2), 3, 3, 3),
}
# On a CPU the call to cuDNN runs on XLA.
KERNELS = {
    "splash": (functools.partial(attention_splash, interpret=True), 0.7),
    "triton": (functools.partial(attention_triton, interpret=True), 0.7),
    "cudnn": (functools.partial(attention_cudnn, backend="xla"), None),
}


def difference(kernel, soft_cap, sizes, rows, heads, kv_heads):
    rng = np.random.default_rng(0)
    arrays = [
        jnp.asarray(rng.normal(size=(rows, LENGTH, count, HEAD_DIM)), jnp.float32)
        for count in (heads, kv_heads, kv_heads)
    ]
    segments = jnp.asarray(np.sort(rng.integers(0, 3, (rows, LENGTH))), jnp.int32)
    index, options = jnp.int32(1), dict(soft_cap=soft_cap, scale=0.5)

    def value(how, arrays, index):
        return (jnp.sin(how(*arrays, window=LayerWindow((None, 3), index), **options))).sum()

    by_xla = functools.partial(attention, query_segments=segments, key_segments=segments)
    by_kernel = functools.partial(kernel, segments=segments)
    expected = jax.value_and_grad(functools.partial(value, by_xla))(arrays, index)
    mesh = jax.make_mesh(sizes, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        step = jax.jit(jax.value_and_grad(functools.partial(value, by_kernel)))
        assert "shard_map" in str(jax.make_jaxpr(step)(arrays, index))
        found = step(arrays, index)
    leaves = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in leaves)


if __name__ == "__main__":
    found = {
        f"{name}, {case}": difference(*kernel, *sizes)
        for name, kernel in KERNELS.items()
        for case, sizes in CASES.items()
    }
    print(json.dumps(found))
