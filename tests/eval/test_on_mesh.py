"""The devices of a mesh share what is generated and what is measured."""

import pytest

from tests.own_process import told_by


@pytest.mark.slow
def test_answers_and_likelihoods_are_those_of_one_device_and_no_token_waits_for_another_device():
    found = told_by("-m", "tests.eval.on_mesh")
    assert len(found.pop("lengths")) > 3  # rows end at different times
    assert set(found) == {"data", "fsdp", "all", "no room"}
    for name, seen in found.items():
        assert seen["greedy"] and seen["sampled"], name
        assert seen["likelihood"] < 1e-5 and seen["cached"] < 1e-5, (name, seen)
    exchanged = {name: seen["exchanged"] for name, seen in found.items()}
    assert exchanged["data"] == exchanged["fsdp"] == []
    assert exchanged["all"] and exchanged["no room"]
