"""How a process finds out whether it is alone."""

import pytest
from pydantic import ValidationError

from adakd_jax.config import ProcessesConfig
from adakd_jax.processes import _how_to_join

TORCHRUN = {"MASTER_ADDR": "node0", "MASTER_PORT": "29500", "WORLD_SIZE": "4", "RANK": "3"}
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[0-1]",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_NTASKS": "2",
}


def joined(environ, **config):
    return _how_to_join(ProcessesConfig(**config), {"JAX_PLATFORMS": "cpu"} | environ)


def test_without_signs_of_others_a_process_is_alone():
    assert joined({}) is None
    assert joined(TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0"}) is None
    assert joined(SLURM | {"SLURM_NTASKS": "1"}) is None
    in_batch_script = {key: SLURM[key] for key in ("SLURM_JOB_ID", "SLURM_NTASKS")}
    assert joined(in_batch_script) is None


def test_torchruns_variables():
    found = joined(TORCHRUN)
    assert found is not None and "local_device_ids" not in found  # one process a machine
    assert (found["coordinator_address"], found["num_processes"]) == ("node0:29500", 4)
    assert found["process_id"] == 3
    several = joined(TORCHRUN | {"LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"})
    assert several is not None and several["local_device_ids"] == [1]


def test_slurm_is_left_to_jax():
    assert joined(SLURM) == {}


def test_by_hand_comes_before_all_else():
    found = joined(TORCHRUN | SLURM, coordinator="here:1", count=2, index=0)
    assert found is not None
    assert (found["coordinator_address"], found["num_processes"]) == ("here:1", 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"coordinator": "here:1"}, "in part"),
        (
            {"coordinator": "here:1", "count": 2, "index": 2},
            "no process 2 of 2; valid: index 0 … 1",
        ),
        ({"coordinator": "here", "count": 2, "index": 0}, "names no port; valid: HOST:PORT"),
    ],
)
def test_what_cannot_be_joined_is_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        ProcessesConfig(**values)
