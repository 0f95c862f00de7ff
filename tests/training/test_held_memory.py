"""A run holds nothing twice, whether it starts or goes on."""

import pytest

from tests.own_process import told_by
from tests.training.held_memory import both_starts, changes_of

COUNTERS = 2048  # keys, counts and constants of programs


def check(found):
    for start in found.values():
        assert 0 <= start["trained"] - start["frozen"] - start["state"] < COUNTERS, found
    resumed = found["resumed"]
    assert abs(resumed["trained"] - found["fresh"]["trained"]) < COUNTERS
    # Until the checkpoint is read there is nothing of what it holds.
    assert 0 <= resumed["restoring"] - resumed["frozen"] < COUNTERS < resumed["state"] / 10, found


@pytest.mark.parametrize(
    ("lora", "averages"), [(False, False), pytest.param(True, True, marks=pytest.mark.slow)]
)
def test_a_resumed_run_holds_what_a_new_one_does(settings, lora, averages):
    check(both_starts(settings(**changes_of(lora, averages))))


@pytest.mark.slow
def test_so_it_does_on_a_mesh(teacher, rows, tmp_path):
    told = told_by("-m", "tests.training.held_memory", str(teacher), str(rows), str(tmp_path))
    assert set(told) == {"whole", "adapters"}
    for found in told.values():
        check(found)
