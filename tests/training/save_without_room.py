"""Saves a state, and another where no file has room.

`python -m tests.training.save_without_room DIR`

In a process of its own: writes that Orbax drops without having begun them end with it. Prints the
error's message.
"""

import resource
import sys

import jax.numpy as jnp
import optax

from adakd_jax.training.checkpoint import Checkpoints, SaveError
from adakd_jax.training.state import TrainState, init_state


def small_state() -> TrainState:
    """Adam's state of one matrix."""
    kernel = jnp.arange(4096.0).reshape(64, 64)
    return init_state({"kernel": kernel}, optax.adam(1e-3), seed=0)


def main(folder: str) -> None:
    """Runs the script."""
    state, limits = small_state(), resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(state)
        checkpoints.wait()
    try:
        with Checkpoints(folder) as checkpoints:
            # No file may grow past this: as good as a full disk to a program that writes one.
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
            checkpoints.save(state._replace(step=state.step + 1))
            checkpoints.wait()
    except SaveError as error:
        print(error)


if __name__ == "__main__":
    main(sys.argv[1])
