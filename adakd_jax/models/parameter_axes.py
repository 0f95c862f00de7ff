"""Logical axes of every parameter: the one table that sharding rules are written against."""

_PER_LAYER = {
    "attn.query.kernel": ("embed", "heads"),
    "attn.query.bias": ("heads",),
    "attn.key.kernel": ("embed", "kv_heads"),
    "attn.key.bias": ("kv_heads",),
    "attn.value.kernel": ("embed", "kv_heads"),
    "attn.value.bias": ("kv_heads",),
    "attn.out.kernel": ("heads", "embed"),
    "attn.out.bias": ("embed",),
    "attn.sinks": ("heads",),
    "attn.query_norm.scale": ("head_dim",),
    "attn.key_norm.scale": ("head_dim",),
    "attn.gate.kernel": ("embed", "heads"),
    "attn.gate.bias": ("heads",),
    "wide.query.kernel": ("embed", "heads"),
    "wide.query.bias": ("heads",),
    "wide.key.kernel": ("embed", "kv_heads"),
    "wide.key.bias": ("kv_heads",),
    "wide.value.kernel": ("embed", "kv_heads"),
    "wide.value.bias": ("kv_heads",),
    "wide.out.kernel": ("heads", "embed"),
    "wide.out.bias": ("embed",),
    "wide.query_norm.scale": ("head_dim",),
    "wide.key_norm.scale": ("head_dim",),
    "reader.query.kernel": ("embed", "heads"),
    "reader.query.bias": ("heads",),
    "reader.out.kernel": ("heads", "embed"),
    "reader.out.bias": ("embed",),
    "reader.query_norm.scale": ("head_dim",),
    "wide_reader.query.kernel": ("embed", "heads"),
    "wide_reader.query.bias": ("heads",),
    "wide_reader.out.kernel": ("heads", "embed"),
    "wide_reader.out.bias": ("embed",),
    "wide_reader.query_norm.scale": ("head_dim",),
    "delta.query.kernel": ("embed", "heads"),
    "delta.key.kernel": ("embed", "heads"),
    "delta.value.kernel": ("embed", "heads"),
    "delta.gate.kernel": ("embed", "heads"),
    "delta.write.kernel": ("embed", "heads"),
    "delta.decay.kernel": ("embed", "heads"),
    "delta.out.kernel": ("heads", "embed"),
    "delta.query_filter": ("taps", "channel", "heads"),
    "delta.key_filter": ("taps", "channel", "heads"),
    "delta.value_filter": ("taps", "channel", "heads"),
    "delta.log_rate": ("heads",),
    "delta.decay_bias": ("heads",),
    "delta.norm.scale": ("head_dim",),
    "ffw.gate.kernel": ("embed", "ffw"),
    "ffw.gate.bias": ("ffw",),
    "ffw.up.kernel": ("embed", "ffw"),
    "ffw.up.bias": ("ffw",),
    "ffw.down.kernel": ("ffw", "embed"),
    "ffw.down.bias": ("embed",),
    "reader_ffw.gate.kernel": ("embed", "ffw"),
    "reader_ffw.up.kernel": ("embed", "ffw"),
    "reader_ffw.down.kernel": ("ffw", "embed"),
    "shared.gate.kernel": ("embed", "ffw"),
    "shared.up.kernel": ("embed", "ffw"),
    "shared.down.kernel": ("ffw", "embed"),
    "shared.share": ("embed", "scores"),
    "ffw.router.weight": ("embed", "scores"),
    "ffw.router.bias": ("scores",),
    "ffw.experts.gate.kernel": ("experts", "embed", "ffw"),
    "ffw.experts.gate.bias": ("experts", "ffw"),
    "ffw.experts.up.kernel": ("experts", "embed", "ffw"),
    "ffw.experts.up.bias": ("experts", "ffw"),
    "ffw.experts.down.kernel": ("experts", "ffw", "embed"),
    "ffw.experts.down.bias": ("experts", "embed"),
    "beside.router.weight": ("embed", "scores"),
    "beside.router.scale": ("embed",),
    "beside.router.expert_scale": ("scores",),
    "beside.experts.gate.kernel": ("experts", "embed", "ffw"),
    "beside.experts.up.kernel": ("experts", "embed", "ffw"),
    "beside.experts.down.kernel": ("experts", "ffw", "embed"),
    "beside.norm.scale": ("embed",),
    "beside.dense_norm.scale": ("embed",),
    "beside.out_norm.scale": ("embed",),
    "attn_norm.scale": ("embed",),
    "attn_norm.bias": ("embed",),
    "ffw_norm.scale": ("embed",),
    "ffw_norm.bias": ("embed",),
    "post_attn_norm.scale": ("embed",),
    "post_ffw_norm.scale": ("embed",),
    "per_layer.gate.kernel": ("embed", "inputs"),
    "per_layer.out.kernel": ("inputs", "embed"),
    "per_layer.norm.scale": ("embed",),
    "scalar": ("scalar",),
}
# Beside a kernel [in, out] its adapter's A [in, rank] and B [rank, out].
_ADAPTERS = {
    f"{path.removesuffix('kernel')}adapter.{name}": both
    for path, (inward, outward) in (
        (path, axes)
        for path, axes in _PER_LAYER.items()
        if path.endswith(".kernel") and "experts" not in axes and not path.startswith("shared.")
    )
    for name, both in (("a", (inward, "rank")), ("b", ("rank", outward)))
}
PARAMETER_AXES: dict[str, tuple[str, ...]] = {
    "embed.embedding": ("vocab", "embed"),
    "position_embed.embedding": ("positions", "embed"),
    "head.embedding": ("vocab", "embed"),
    "per_layer.embedding": ("vocab", "embed"),
    "per_layer.project.kernel": ("embed", "inputs"),
    "per_layer.norm.scale": ("inputs",),
    "final_norm.scale": ("embed",),
    "final_norm.bias": ("embed",),
    **{f"layers.{path}": ("layers", *axes) for path, axes in (_PER_LAYER | _ADAPTERS).items()},
}


def parameter_axes(path: str) -> tuple[str, ...]:
    """Logical axis names of a parameter, one per dimension.

    `heads` and `kv_heads` are heads · head_dim, heads outermost: a mesh axis over them divides
    the number of heads.

    Args:
        path: dotted, as in `layers.attn.query.kernel`.

    Raises:
        ValueError: no parameter has this path.
    """
    if path not in PARAMETER_AXES:
        raise ValueError(f"no parameter {path!r}; valid: {', '.join(PARAMETER_AXES)}")
    return PARAMETER_AXES[path]
