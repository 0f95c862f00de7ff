"""Training state on disk: asynchronous, atomic, the last and the best few. Never the teacher."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy as policy

from adakd_jax.config import CheckpointConfig
from adakd_jax.hf.folder import absolute
from adakd_jax.training.integrity import (
    DamagedCheckpointError,
    complete_checkpoints,
    has_checksums,
    write_checksums,
)
from adakd_jax.training.state import TrainState

FOLDER = "checkpoints"
METRIC = "held_out_loss"
_NOT_SHOWN = (
    "Requested `tracked_metric`",  # of every save that carries no metric: most, on purpose
    # Errors in writing, each with a traceback, by every thread that meets them: see SaveError.
    "_SignalingThread.run() raised an exception",
    "Handler Commit operations or the Commit callback in background save thread",
    "Save Finalize thread",
    "async_serialize_from_host",
)
for _library in ("absl", "asyncio"):
    logging.getLogger(_library).addFilter(
        lambda record: not any(text in record.getMessage() for text in _NOT_SHOWN)
    )


class SaveError(OSError):
    """A state could not be written; the message says why, and what there is to go on from."""


class Checkpoints:
    """The checkpoints of one run folder.

    A save copies the state to the host and goes on in the background; the folder of a checkpoint
    gets its name only when everything is in it, a list of checksums too, so that one cut short by
    a kill is never picked up.
    """

    def __init__(self, run_dir: str, config: CheckpointConfig | None = None):
        config = config or CheckpointConfig()
        policies: list[policy.PreservationPolicy] = [policy.LatestN(config.keep_last)]
        if config.keep_best:
            best = policy.BestN(
                get_metric_fn=lambda metrics: metrics[METRIC],
                reverse=True,
                n=config.keep_best,
                keep_checkpoints_without_metrics=False,
            )
            policies.append(best)
        self._folder = checkpoints_folder(run_dir)
        self._saving = 0
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy.AnyPreservationPolicy(policies),
                best_fn=lambda metrics: metrics[METRIC],
                best_mode="min",
                cleanup_tmp_directories=True,
                step_prefix="step",
                # Called on the first process when all have written, before the folder is renamed.
                async_options=ocp.AsyncOptions(post_finalization_callback=self._list_checksums),
            ),
        )

    def save(self, state: TrainState, *, held_out_loss: float | None = None) -> None:
        """Save `state` under its step, in the background; `held_out_loss` (reverse KL, or NLL
        without a teacher; nats) ranks it for keep-best.

        Raises:
            SaveError: this save, or the one before it, cannot be written.
        """
        step = int(state.step)
        self.wait()
        if step in self._manager.all_steps():
            return
        metrics = None if held_out_loss is None else {METRIC: held_out_loss}
        self._saving = step
        with self._explained():
            self._manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics, force=True)

    def restore(self, like: Any, step: int | None = None) -> TrainState | None:
        """The checkpoint of `step`, by default the newest, in the structure, shapes and dtypes of
        `like`; None if there is none.
        """
        step = self.latest_step if step is None else step
        if step is None:
            return None
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            restored: Any = self._manager.restore(step, args=ocp.args.StandardRestore(target))
        except Exception as error:
            folder = self._folder / f"step_{step}"
            if has_checksums(folder):  # it is what was saved
                raise
            raise DamagedCheckpointError(
                f"{folder} cannot be read, and has no checksums to compare it with "
                f"({_first_line(error)}); valid: move it away, to go on from the one before it"
            ) from error
        return restored._replace(replay=jax.tree.map(np.asarray, restored.replay))

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """Step of the checkpoint with the lowest held-out loss among those kept."""
        return self._manager.best_step()

    def wait(self) -> None:
        """Return when every save that was started is complete on disk.

        Raises:
            SaveError: it cannot be written.
        """
        with self._explained():
            self._manager.wait_until_finished()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        """Finish what was started and release the folder."""
        with self._explained():
            self._manager.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Says of an error in writing which state is lost and which ones there are."""
        try:
            yield
        except SaveError:
            raise
        except (OSError, ValueError) as error:
            saved = ", ".join(folder.name for folder in complete_checkpoints(self._folder))
            full = "No space left on device"
            raise SaveError(
                f"the state after step {self._saving} was not saved in {self._folder}: "
                f"{full if full in str(error) else _first_line(error)}; complete checkpoints: "
                f"{saved or 'none'}. Make room, or the folder writable; then the same command "
                "continues from the newest"
            ) from error

    def _list_checksums(self) -> None:
        name = f"step_{self._saving}"
        for folder in self._folder.iterdir():
            # On a bucket the folder has its name from the start; elsewhere an ending, till it is
            # complete.
            if folder.name == name or folder.name.startswith(f"{name}."):
                write_checksums(folder)


def has_checkpoints(run_dir: str) -> bool:
    """Whether an earlier start of a run has left a state, sound or not."""
    return bool(complete_checkpoints(checkpoints_folder(run_dir)))


def checkpoints_folder(run_dir: str) -> epath.Path:
    """Where the checkpoints of a run are."""
    return absolute(run_dir) / FOLDER


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
