"""A damaged checkpoint is found out, and what is sound stays in use."""

import json

import pytest
from etils import epath

from adakd_jax.training.integrity import (
    DamagedCheckpointError,
    damage,
    has_checksums,
    set_damaged_aside,
    write_checksums,
)

LARGE = 100_000


def write_checkpoint(checkpoints, step):
    folder = checkpoints / f"step_{step}"
    (folder / "default" / "d").mkdir(parents=True)
    (folder / "default" / "_METADATA").write_text("{}")
    (folder / "default" / "d" / "array").write_bytes(bytes(range(250)) * (LARGE // 250))
    write_checksums(folder)
    (folder / "_CHECKPOINT_METADATA").write_text("written last")
    return folder


@pytest.fixture
def checkpoints(tmp_path):
    folder = epath.Path(tmp_path) / "checkpoints"
    for step in (2, 10):
        write_checkpoint(folder, step)
    return folder


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def names(checkpoints):
    return {folder.name for folder in checkpoints.iterdir()}


def test_what_was_saved_is_sound(checkpoints):
    assert damage(checkpoints / "step_10") is None and has_checksums(checkpoints / "step_10")


@pytest.mark.parametrize("name", ["default/_METADATA", "default/d/array"])
def test_every_kind_of_damage_is_named(checkpoints, name):
    file = checkpoints / "step_10" / name
    content = file.read_bytes()
    flip(file)
    assert damage(file.parents[len(name.split("/")) - 1]) == (
        f"the content of {name} has changed since it was saved"
    )
    file.write_bytes(content[:-1])
    size = len(content)
    expected = f"{name} has {size - 1:,} bytes, it should have {size:,}"
    assert damage(checkpoints / "step_10") == expected
    file.unlink()
    assert damage(checkpoints / "step_10") == f"{name} is missing"


def test_a_quick_look_reads_no_large_file(checkpoints):
    folder = checkpoints / "step_10"
    flip(folder / "default/d/array")
    assert damage(folder, thorough=False) is None
    flip(folder / "default/_METADATA")
    assert "_METADATA" in (damage(folder, thorough=False) or "")


def test_the_newest_sound_one_becomes_the_newest(checkpoints):
    flip(checkpoints / "step_10/default/d/array")
    (checkpoints / "damaged_step_10").mkdir()
    told = []
    set_damaged_aside(checkpoints, told.append)
    assert names(checkpoints) == {"step_2", "damaged_step_10", "damaged_step_10_2"}
    assert told == [
        "checkpoint step_10 is damaged: the content of default/d/array has changed since it was "
        "saved; set aside as damaged_step_10_2"
    ]


def test_without_a_sound_one_nothing_is_touched(checkpoints):
    flip(checkpoints / "step_10/default/d/array")
    (checkpoints / "step_2/default/d/array").unlink()
    with pytest.raises(DamagedCheckpointError) as refused:
        set_damaged_aside(checkpoints, pytest.fail)
    assert "step_10: the content of" in str(refused.value)
    assert "step_2: default/d/array is missing" in str(refused.value)
    assert names(checkpoints) == {"step_2", "step_10"}


def test_no_checkpoints_are_no_fault(tmp_path):
    set_damaged_aside(epath.Path(tmp_path) / "checkpoints", pytest.fail)


@pytest.mark.parametrize("cause", ["older version", "flipped", "cut"])
def test_a_list_that_cannot_be_read_condemns_no_checkpoint(checkpoints, cause):
    file = checkpoints / "step_10/checksums.json"
    if cause == "older version":
        file.unlink()
    elif cause == "cut":
        file.write_text(file.read_text()[:50])
    else:
        content = json.loads(file.read_text())
        content["files"]["default/d/array"][1] ^= 1
        file.write_text(json.dumps(content))
    told = []
    set_damaged_aside(checkpoints, told.append)
    assert told == ["checkpoint step_10 has no readable checksums.json; used without checking it"]
    assert names(checkpoints) == {"step_2", "step_10"}
    (checkpoints / "step_10/default/_METADATA").unlink()
    set_damaged_aside(checkpoints, told.append)
    assert "damaged_step_10" in names(checkpoints) and "step_2" in names(checkpoints)
