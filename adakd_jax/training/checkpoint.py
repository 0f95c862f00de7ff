"""Training state on disk: asynchronous, atomic, the last and the best few. Never the teacher."""

import dataclasses
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy as policy

from adakd_jax.config import CheckpointConfig
from adakd_jax.hf.export import export_config
from adakd_jax.hf.pretrained import ModelSource, Pretrained
from adakd_jax.hf.tokenizer import load_tokenizer, save_tokenizer
from adakd_jax.models.config import DecoderConfig, Lora
from adakd_jax.models.decoder import abstract_decoder
from adakd_jax.models.families import decoder_config
from adakd_jax.models.lora import combine, split_adapters
from adakd_jax.training.base import check_same_base, frozen_base
from adakd_jax.training.state import TrainState

FOLDER = "checkpoints"
DESCRIPTION = "student"
SOURCE = "source.json"
METRIC = "held_out_loss"
# Orbax warns of every save that carries no metric, which most saves here do on purpose.
logging.getLogger("absl").addFilter(
    lambda record: "Requested `tracked_metric`" not in record.getMessage()
)


class Checkpoints:
    """The checkpoints of one run folder.

    A save copies the state to the host and goes on in the background; the folder of a checkpoint
    gets its name only when everything is in it, so that one cut short by a kill is never picked up.
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

    def save(self, state: TrainState, *, held_out_loss: float | None = None) -> None:
        """Save `state` under its step, in the background; `held_out_loss` (reverse KL, or NLL
        without a teacher; nats) ranks it for keep-best.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        metrics = None if held_out_loss is None else {METRIC: held_out_loss}
        self._manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics, force=True)

    def restore(self, like: Any, step: int | None = None) -> TrainState | None:
        """The checkpoint of `step`, by default the newest, in the structure, shapes and dtypes of
        `like`; None if there is none.
        """
        step = self.latest_step if step is None else step
        if step is None:
            return None
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        restored: Any = self._manager.restore(step, args=ocp.args.StandardRestore(target))
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
        """Return when every save that was started is complete on disk."""
        self._manager.wait_until_finished()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        """Finish what was started and release the folder."""
        self._manager.close()


def describe_student(run_dir: str, student: Pretrained, checksum: int | None = None) -> None:
    """Write beside the checkpoints what they lack: the student's config, tokenizer, origin.

    Of a student with adapters only the `base_checksum` of the frozen weights is there, by which
    `frozen_base` knows them again.

    Raises:
        OtherBaseError: an earlier start of the run had other frozen weights.
    """
    folder = epath.Path(run_dir).expanduser() / DESCRIPTION
    if checksum is not None and (folder / SOURCE).exists():
        recorded = json.loads((folder / SOURCE).read_text())["base_checksum"]
        check_same_base(run_dir, recorded, checksum)
    folder.mkdir(parents=True, exist_ok=True)
    if student.tokenizer is not None:
        save_tokenizer(student.tokenizer, Path(folder))
    source = {
        "name": student.source.name,
        "hf_config": export_config(student),
        "licence": student.source.licence,
        "generation_config": dict(student.source.generation_config),
        "chat_template": student.source.chat_template,
        "lora": None if student.config.lora is None else asdict(student.config.lora),
        "base_checksum": checksum,
    }
    (folder / SOURCE).write_text(json.dumps(source, indent=2))


def saved_step(run_dir: str, step: int | str | None = None) -> int:
    """The step of a checkpoint.

    Args:
        run_dir: folder of the run.
        step: a step, "latest" (default) or "best" (lowest held-out loss).

    Raises:
        FileNotFoundError: no such checkpoint; names those that there are.
    """
    manager = _reader(run_dir)
    saved = sorted(manager.all_steps())
    named = {"latest": manager.latest_step(), "best": manager.best_step()}
    chosen = named.get(str(step or "latest"), next((s for s in saved if str(s) == str(step)), None))
    if chosen is None:
        raise FileNotFoundError(
            f"{run_dir} has no checkpoint {step or 'latest'!r}; valid: {saved}, latest, best"
        )
    return chosen


def load_student(run_dir: str, step: int | str | None = None) -> Pretrained:
    """The student of a run as one of its checkpoints holds it: the averaged weights where they are
    kept. Arguments and errors are those of `saved_step`.

    Of a student with adapters the weights under them are loaded from where the run had them.

    Raises:
        BaseNotFoundError: they are not there any more.
        OtherBaseError: others are.
    """
    chosen, manager = saved_step(run_dir, step), _reader(run_dir)
    folder = epath.Path(run_dir).expanduser() / DESCRIPTION
    source, config, checksum = _described(folder)
    graphdef, params = abstract_decoder(config)
    if config.lora is not None:
        params = split_adapters(params)[1]
    has_average = bool(manager.item_metadata(chosen)["average"])
    name = "average" if has_average else "params"
    # On whatever device this process has, not on those that the run was saved from.
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    how = jax.tree.map(lambda _: ocp.ArrayRestoreArgs(sharding=place), params)
    restored = manager.restore(
        chosen,
        args=ocp.args.PyTreeRestore({name: params}, restore_args={name: how}, partial_restore=True),
    )
    base = None if config.lora is None else frozen_base(run_dir, checksum)
    has_tokenizer = (folder / "tokenizer.json").exists()
    tokenizer = load_tokenizer(str(folder)) if has_tokenizer else None
    return Pretrained(config, graphdef, combine(base, restored[name]), tokenizer, source)


def _described(folder: epath.Path) -> tuple[ModelSource, DecoderConfig, int | None]:
    """What `describe_student` wrote; before adapters came it wrote nothing of them."""
    described = json.loads((folder / SOURCE).read_text())
    lora, checksum = described.pop("lora", None), described.pop("base_checksum", None)
    source = ModelSource(**described)
    config = decoder_config(source.hf_config)
    if lora is not None:
        lora = Lora(**lora | {"targets": tuple(lora["targets"])})
    return source, dataclasses.replace(config, lora=lora), checksum


def _reader(run_dir: str) -> ocp.CheckpointManager:
    return ocp.CheckpointManager(
        epath.Path(run_dir).expanduser().absolute() / FOLDER,
        item_handlers=ocp.PyTreeCheckpointHandler(),
        options=ocp.CheckpointManagerOptions(
            best_fn=lambda metrics: metrics[METRIC],
            best_mode="min",
            step_prefix="step",
            read_only=True,
        ),
    )
