"""Confidence bins and their expected error on tokens made by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from adakd_jax.eval.calibration import BINS, bin_sums, calibration


@pytest.fixture(scope="module")
def measured():
    """Two tokens at confidence .9, one of them right; one at 1/2, right; one not counted."""
    sure, torn = jnp.log(jnp.array([0.9, 0.1])), jnp.zeros(2)
    scores = jnp.stack([sure, sure, torn, sure])
    labels = jnp.array([0, 1, 0, 0])
    counted = jnp.array([True, True, True, False])
    return calibration(np.asarray(bin_sums(scores, labels, counted)))


def test_tokens_fall_into_the_bin_of_their_confidence(measured):
    rows = measured.rows()
    assert [row["tokens"] for row in rows] == [1, 2]
    assert (rows[0]["from"], rows[0]["to"]) == (7 / 15, 8 / 15)  # .5
    assert (rows[1]["from"], rows[1]["to"]) == (13 / 15, 14 / 15)  # .9
    assert rows[0]["accuracy"] == 1.0 and rows[1]["accuracy"] == 0.5
    assert rows[1]["confidence"] == pytest.approx(0.9)


def test_expected_error_weighs_bins_by_their_tokens(measured):
    assert measured.expected_error == pytest.approx((1 * 0.5 + 2 * 0.4) / 3)


def test_certainty_is_in_the_last_bin():
    found = bin_sums(jnp.array([[80.0, 0.0]]), jnp.array([0]), jnp.array([True]))
    np.testing.assert_array_equal(found, [[0, 0, 0]] * (BINS - 1) + [[1, 1, 1]])
