import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adakd_jax.models import attention as module
from adakd_jax.models.attention import attention, gpu_implementation
from adakd_jax.models.attention_kernels import attention_cudnn, attention_splash, cudnn_obstacle
from adakd_jax.models.attention_mask import LayerWindow, attention_mask
from adakd_jax.models.attention_triton import attention_triton

B, T, N, K, H = 2, 9, 4, 2, 8
SEGMENTS = jnp.array([[1, 1, 1, 1, 2, 2, 2, 0, 0], [0] * 9], jnp.int32)


def inputs(length=T, seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    shapes = ((B, length, N, H), (B, length, K, H), (B, length, K, H))
    return tuple(jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True))


def oracle(query, key, value, segments, window, soft_cap, scale):
    """The definition, one output vector at a time, float64."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    out = np.zeros_like(query)
    for b, t, n in np.ndindex(query.shape[:3]):
        seen = [
            s
            for s in range(t + 1)
            if segments[b, s] == segments[b, t] and (window is None or t - s < window)
        ]
        scores = scale * key[b, seen, n // (N // K)] @ query[b, t, n]
        if soft_cap is not None:
            scores = soft_cap * np.tanh(scores / soft_cap)
        weights = np.exp(scores - scores.max())
        out[b, t, n] = weights / weights.sum() @ value[b, seen, n // (N // K)]
    return out


@pytest.mark.parametrize(("window", "soft_cap"), [(None, None), (3, 0.7), (1, None)])
def test_xla_is_the_definition(window, soft_cap):
    arrays = inputs()
    options = dict(window=window, soft_cap=soft_cap, scale=0.9)
    got = attention(*arrays, query_segments=SEGMENTS, key_segments=SEGMENTS, **options)
    expected = oracle(*arrays, SEGMENTS, **options)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("block", [module.QUERY_BLOCK, 4])
def test_a_sink_is_a_slot_without_a_value(monkeypatch, block):
    """Against a slot in its place, whose key scores it and whose value is 0; so in blocks."""
    monkeypatch.setattr(module, "QUERY_BLOCK", block)
    query, key, value = inputs()
    sinks = jnp.array([0.3, -2.0, 40.0, 1.0])
    options = dict(query_segments=SEGMENTS, key_segments=SEGMENTS, window=3)

    def run(query, sinks):
        return attention(query, key, value, sinks=sinks, **options)

    got, back = jax.vjp(run, query, sinks)
    sums = oracle(*inputs(), SEGMENTS, 3, None, 1.0)
    scores = np.einsum("BTNH,BSNH->BNTS", query, np.repeat(key, N // K, axis=2))
    mask = np.asarray(attention_mask(SEGMENTS, SEGMENTS, window=3))[:, None]
    total = np.where(mask, np.exp(scores), 0).sum(-1)
    kept = total / (total + np.exp(np.asarray(sinks, np.float64))[:, None])
    np.testing.assert_allclose(got, sums * kept.transpose(0, 2, 1)[..., None], atol=3e-6)
    slopes = back(jnp.ones_like(got))[1]
    step = 1e-2 * jnp.eye(N)[0]
    change = (run(query, sinks + step) - run(query, sinks - step)).sum() / 2e-2
    np.testing.assert_allclose(slopes[0], change, rtol=1e-2)
    assert np.isfinite(slopes).all()


def test_sinks_are_refused_where_there_are_none():
    options = dict(query_segments=SEGMENTS, key_segments=SEGMENTS, implementation="splash")
    with pytest.raises(ValueError, match=r"'splash': no sinks; valid: 'xla'"):
        attention(*inputs(), sinks=jnp.zeros(N), **options)


def test_offset_is_the_slot_of_the_first_query():
    query, key, value = inputs()
    whole = attention(query, key, value, query_segments=SEGMENTS, key_segments=SEGMENTS, window=3)
    last = attention(
        query[:, 5:],
        key,
        value,
        query_segments=SEGMENTS[:, 5:],
        key_segments=SEGMENTS,
        query_offset=jnp.int32(5),
        window=3,
    )
    np.testing.assert_allclose(last, whole[:, 5:], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("dtype", "offset"), [(jnp.bfloat16, None), (jnp.float32, 2)])
def test_blocks_of_queries_change_nothing(monkeypatch, dtype, offset):
    query, key, value = (array.astype(dtype) for array in inputs())
    query, slots = query[:, offset:], None if offset is None else jnp.int32(offset)
    direction = jax.random.normal(jax.random.key(1), query.shape)

    def found(block):
        def total(*arrays):
            out = attention(
                *arrays,
                query_segments=SEGMENTS[:, offset:],
                key_segments=SEGMENTS,
                query_offset=slots,
                window=3,
                soft_cap=0.7,
                implementation="xla",
            )
            return (out * direction).sum(), out

        monkeypatch.setattr(module, "QUERY_BLOCK", block)
        return jax.value_and_grad(total, (0, 1, 2), has_aux=True)(query, key, value)

    # Nine queries are three blocks, seven two with a place left over.
    for got, expected in zip(*(jax.tree.leaves(found(n)) for n in (4, T)), strict=True):
        assert got.dtype == expected.dtype
        atol = 2e-6 if dtype == jnp.float32 else 4e-2
        np.testing.assert_allclose(*(np.float32(x) for x in (got, expected)), atol=atol)


def test_long_rows_never_have_all_their_scores_in_memory():
    length = 4 * module.QUERY_BLOCK
    array = jax.ShapeDtypeStruct((1, length, 1, 8), jnp.float32)
    segments = jnp.ones((1, length), jnp.int32)

    def total(*arrays):
        return attention(*arrays, query_segments=segments, key_segments=segments).sum()

    compiled = jax.jit(jax.grad(total, (0, 1, 2))).lower(array, array, array).compile()
    # Several copies of the scores of a block, a quarter of all.
    assert compiled.memory_analysis().temp_size_in_bytes < 2 * 4 * length**2


def test_padding_has_finite_gradients():
    def loss(arrays):
        return attention(*arrays, query_segments=SEGMENTS, key_segments=SEGMENTS, window=2).sum()

    gradients = jax.grad(loss)(inputs())
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def windows_agree(kernel, length, atol, **options):
    """A kernel against XLA, with a static window and with one picked by a traced index."""
    arrays = inputs(length)
    segments = jnp.pad(SEGMENTS, ((0, 0), (length - T, 0)), mode="edge")
    xla = functools.partial(
        attention, *arrays, query_segments=segments, key_segments=segments, **options
    )
    choices = (None, 3)
    for index, window in enumerate(choices):
        expected = xla(window=window)
        np.testing.assert_allclose(
            kernel(*arrays, segments=segments, window=window, **options), expected, atol=atol
        )

        @jax.jit
        def traced(index):
            picked = LayerWindow(choices, index)
            by_kernel = kernel(*arrays, segments=segments, window=picked, **options)
            return by_kernel, xla(window=picked)

        for got in traced(jnp.int32(index)):
            np.testing.assert_allclose(got, expected, atol=atol)


def test_splash_agrees_with_xla():
    # 130 is no multiple of the tile: the kernel's padding is tested too.
    kernel = functools.partial(attention_splash, interpret=True)
    windows_agree(kernel, length=130, atol=2e-5, soft_cap=0.7, scale=0.5)


def test_the_triton_kernel_agrees_with_xla():
    # 70 is no multiple of the block, heads of 8 are padded to 16.
    kernel = functools.partial(attention_triton, interpret=True)
    windows_agree(kernel, length=70, atol=2e-5, soft_cap=0.7, scale=0.5)


@pytest.mark.parametrize("soft_cap", [None, 0.7])
def test_gradients_of_the_triton_kernel_are_those_of_xla(soft_cap):
    arrays, length = inputs(70), 70
    segments = jnp.repeat(jnp.array([[1, 2, 2, 3, 0], [1, 1, 1, 1, 1]], jnp.int32), 14, axis=1)
    direction = jax.random.normal(jax.random.key(1), (B, length, N, H))
    options = dict(window=20, soft_cap=soft_cap, scale=0.5)

    def gradients(kernel):
        return jax.grad(lambda *x: (kernel(*x) * direction).sum(), argnums=(0, 1, 2))(*arrays)

    ours = gradients(lambda *x: attention_triton(*x, segments=segments, interpret=True, **options))
    theirs = gradients(
        lambda *x: attention(*x, query_segments=segments, key_segments=segments, **options)
    )
    for got, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("capability", "dtype", "head_dim", "length", "soft_cap", "chosen"),
    [
        (9.0, jnp.bfloat16, 64, 512, None, "cudnn"),
        (8.0, jnp.float16, 128, 2048, None, "cudnn"),
        (9.0, jnp.bfloat16, 128, 8192, None, "triton"),
        (9.0, jnp.bfloat16, 256, 512, None, "triton"),
        (8.9, jnp.bfloat16, 128, 512, 50.0, "triton"),
        (9.0, jnp.bfloat16, 64, 511, None, "triton"),
        (9.0, jnp.bfloat16, 512, 512, None, "xla"),
        (9.0, jnp.float32, 64, 512, None, "xla"),
        (7.5, jnp.float16, 64, 512, None, "xla"),
        (0.0, jnp.bfloat16, 64, 512, None, "xla"),
    ],
)
def test_what_a_gpu_computes_attention_with(capability, dtype, head_dim, length, soft_cap, chosen):
    assert gpu_implementation(capability, dtype, head_dim, length, soft_cap) == chosen


def test_the_call_to_cudnn_means_the_same():
    def kernel(*arrays, **options):
        return attention_cudnn(*arrays, backend="xla", soft_cap=None, **options)

    windows_agree(kernel, length=T, atol=1e-6, scale=0.5)


@pytest.mark.parametrize(
    ("dtype", "head_dim", "length", "soft_cap", "reason"),
    [
        (jnp.bfloat16, 64, 8, None, None),
        (jnp.float32, 64, 8, None, "float32"),
        (jnp.bfloat16, 36, 8, None, "36"),
        (jnp.bfloat16, 256, 8, None, "256"),
        (jnp.bfloat16, 64, 7, None, "even"),
        (jnp.bfloat16, 64, 8, 30.0, "soft cap"),
    ],
)
def test_what_cudnn_supports(dtype, head_dim, length, soft_cap, reason):
    obstacle = cudnn_obstacle(dtype, head_dim, length, soft_cap)
    assert obstacle is None if reason is None else reason in obstacle


@pytest.mark.parametrize(
    ("backend", "dtype", "chosen"),
    [
        ("cpu", jnp.bfloat16, None),
        ("tpu", jnp.float32, "attention_splash"),
        ("gpu", jnp.bfloat16, "attention_cudnn"),
        ("gpu", jnp.float32, None),
    ],
)
def test_each_backend_has_its_implementation(monkeypatch, backend, dtype, chosen):
    called = []
    for name in ("attention_splash", "attention_cudnn", "attention_triton"):
        monkeypatch.setattr(
            module, name, lambda query, *_, name=name, **__: called.append(name) or query
        )
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(module, "_capability", lambda: 9.0)
    arrays = [array[:, :8].astype(dtype) for array in inputs()]
    segments = SEGMENTS[:, :8]
    attention(*arrays, query_segments=segments, key_segments=segments)
    assert called == ([chosen] if chosen else [])


def test_a_named_implementation_that_cannot_is_refused():
    with pytest.raises(ValueError, match=r"cudnn.*float32.*valid: 'triton', 'xla'"):
        attention(*inputs(), query_segments=SEGMENTS, key_segments=SEGMENTS, implementation="cudnn")
