"""Any mesh finds what one device finds."""

import pytest

from tests.own_process import told_by


@pytest.mark.slow
def test_eight_devices_keep_what_one_keeps():
    found = told_by("-m", "tests.pruning.on_mesh", timeout=600)
    assert len(found) == 5
    assert all(each["same"] for each in found.values()), found
    assert all(each["error"] < 1e-3 for each in found.values()), found
