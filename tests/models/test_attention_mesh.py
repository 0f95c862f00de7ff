"""The splash kernel computes on a mesh what XLA does on one device."""

import pytest

from tests.own_process import told_by


@pytest.mark.slow
def test_splash_on_a_mesh_agrees_with_xla_on_one_device():
    found = told_by("-m", "tests.models.attention_on_mesh")
    assert len(found) == 3 and max(found.values()) < 1e-4, found
