"""Attention kernels compute on a mesh what XLA does on one device."""

import pytest

from tests.own_process import told_by


@pytest.mark.slow
def test_kernels_on_a_mesh_agree_with_xla_on_one_device():
    found = told_by("-m", "tests.models.attention_on_mesh")
    assert len(found) == 9 and max(found.values()) < 1e-4, found
