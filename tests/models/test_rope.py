import jax.numpy as jnp
import numpy as np
import pytest

from adakd_jax.models import Rope
from adakd_jax.models.rope import Rotary, apply_rope, inverse_frequencies, rotary_table


def test_rotation_is_the_definition():
    """Pair (i, i + H/2) turns by position · θ^(−2i/H)."""
    x = np.random.default_rng(0).normal(size=(1, 3, 2, 8)).astype(np.float32)
    positions = np.array([[0, 5, 1000]], np.int32)
    cos, sin = rotary_table((Rope(50.0), Rope(1e4)), 8, jnp.asarray(positions))
    got = apply_rope(jnp.asarray(x), Rotary(cos[1], sin[1]))
    expected = np.zeros(x.shape)
    for t, n, i in np.ndindex(3, 2, 4):
        angle = positions[0, t] * 1e4 ** (-2 * i / 8)
        a, b = x[0, t, n, i], x[0, t, n, i + 4]
        expected[0, t, n, i] = a * np.cos(angle) - b * np.sin(angle)
        expected[0, t, n, i + 4] = b * np.cos(angle) + a * np.sin(angle)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-4)
    np.testing.assert_array_equal(got[:, 0], x[:, 0])


def test_linear_scaling_divides_every_frequency():
    plain = inverse_frequencies(Rope(1e4), 16)
    np.testing.assert_allclose(inverse_frequencies(Rope(1e4, "linear", 4.0), 16), plain / 4)


def test_llama3_scaling_keeps_short_wavelengths_and_divides_long_ones():
    rope = Rope(500_000.0, "llama3", 8.0, 1.0, 4.0, 8192)
    plain = inverse_frequencies(Rope(500_000.0), 128).astype(np.float64)
    got = inverse_frequencies(rope, 128)
    wavelength = 2 * np.pi / plain
    short, long = wavelength < 8192 / 4, wavelength > 8192 / 1
    np.testing.assert_allclose(got[short], plain[short], rtol=1e-6)
    np.testing.assert_allclose(got[long], plain[long] / 8, rtol=1e-6)
    between = ~short & ~long
    assert between.sum() >= 2
    smooth = (8192 / wavelength[between] - 1) / 3
    expected = ((1 - smooth) / 8 + smooth) * plain[between]
    np.testing.assert_allclose(got[between], expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_rotation_keeps_dtype_and_norm(dtype):
    x = jnp.ones((1, 2, 1, 4), dtype)
    cos, sin = rotary_table((Rope(),), 4, jnp.array([[3, 70]]))
    turned = apply_rope(x, Rotary(cos[0], sin[0]))
    assert turned.dtype == dtype
    np.testing.assert_allclose(np.linalg.norm(np.float32(turned), axis=-1), 2.0, rtol=1e-2)
