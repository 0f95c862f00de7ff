"""Mixers compute on a mesh what they do on one device."""

import pytest

from tests.own_process import told_by


@pytest.mark.slow
@pytest.mark.parametrize("name", ["delta_nets", "readers"])
def test_mixers_on_a_mesh_agree_with_one_device_and_keep_their_heads_in_place(name):
    found = told_by("-m", "tests.models.mixers_on_mesh", name)
    assert set(found) == {"fsdp", "tensor", "data"}
    for difference, moved in found.values():
        assert difference < 3e-4 and moved == 0, found
