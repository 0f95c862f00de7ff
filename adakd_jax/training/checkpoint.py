"""Training state on disk: asynchronous, atomic, the last few and the best few. Never the teacher."""

from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy as policy

from adakd_jax.config import CheckpointConfig
from adakd_jax.training.state import TrainState

FOLDER = "checkpoints"
METRIC = "reverse_kl"


class Checkpoints:
    """The checkpoints of one run folder.

    A save copies the state to the host and goes on in the background; the folder of a checkpoint gets its name only when
    everything is in it, so that one cut short by a kill is never picked up.
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
        self._manager = ocp.CheckpointManager(
            epath.Path(run_dir).expanduser().absolute() / FOLDER,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy.AnyPreservationPolicy(policies),
                best_fn=lambda metrics: metrics[METRIC],
                best_mode="min",
                cleanup_tmp_directories=True,
                step_prefix="step",
            ),
        )

    def save(self, state: TrainState, *, reverse_kl: float | None = None) -> None:
        """Save `state` under its step, in the background; `reverse_kl` (held-out, nats) ranks it for keep-best."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        metrics = None if reverse_kl is None else {METRIC: reverse_kl}
        self._manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics, force=True)

    def restore(self, like: Any, step: int | None = None) -> TrainState | None:
        """The checkpoint of `step`, by default the newest, in the structure, shapes and dtypes of `like`; None if there is none."""
        step = self.latest_step if step is None else step
        if step is None:
            return None
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._manager.restore(step, args=ocp.args.StandardRestore(target))

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """Step of the checkpoint with the lowest held-out reverse KL among those kept."""
        return self._manager.best_step()

    def wait(self) -> None:
        """Return when every save that was started is complete on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Finish what was started and release the folder."""
        self._manager.close()
