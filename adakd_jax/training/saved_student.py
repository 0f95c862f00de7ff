"""A run's student beside its checkpoints: what they lack, and the model read back from one."""

import dataclasses
import json
from dataclasses import asdict

import jax
import orbax.checkpoint as ocp
from etils import epath

from adakd_jax.hf.export import export_config
from adakd_jax.hf.model_files import read_json
from adakd_jax.hf.pretrained import ModelSource, Pretrained
from adakd_jax.hf.tokenizer import load_tokenizer, save_tokenizer
from adakd_jax.models.config import DecoderConfig, Lora
from adakd_jax.models.decoder import abstract_decoder
from adakd_jax.models.families import decoder_config
from adakd_jax.models.lora import combine, split_adapters
from adakd_jax.training.base import check_same_base, frozen_base
from adakd_jax.training.checkpoint import METRIC, checkpoints_folder
from adakd_jax.training.integrity import DamagedCheckpointError, damage
from adakd_jax.user_path import user_path
from adakd_jax.whole_file import write_whole

DESCRIPTION = "student"
SOURCE = "source.json"


def describe_student(
    run_dir: str, student: Pretrained, checksum: int | None = None, *, another: bool = False
) -> None:
    """Write beside the checkpoints what they lack: the student's config, tokenizer, origin.

    Of a student with adapters only the `base_checksum` of the frozen weights is there, by which
    `frozen_base` knows them again; `another` takes the place of an earlier start's.

    Raises:
        OtherBaseError: an earlier start of the run had other frozen weights.
    """
    folder = user_path(run_dir) / DESCRIPTION
    if checksum is not None and (folder / SOURCE).exists() and not another:
        recorded = read_json(folder / SOURCE)["base_checksum"]
        check_same_base(run_dir, recorded, checksum)
    folder.mkdir(parents=True, exist_ok=True)
    if student.tokenizer is not None:
        save_tokenizer(student.tokenizer, folder)
    source = {
        "name": student.source.name,
        "hf_config": export_config(student),
        "licence": student.source.licence,
        "generation_config": dict(student.source.generation_config),
        "chat_template": student.source.chat_template,
        "lora": None if student.config.lora is None else asdict(student.config.lora),
        "base_checksum": checksum,
    }
    write_whole(folder / SOURCE, json.dumps(source, indent=2))


def saved_step(run_dir: str, step: int | str | None = None) -> int:
    """The step of a checkpoint.

    Args:
        run_dir: folder of the run.
        step: a step, "latest" (default) or "best" (lowest held-out loss).

    Raises:
        FileNotFoundError: no such checkpoint; names those that there are.
    """
    manager = _reader(run_dir, ranked=step == "best")
    saved = sorted(manager.all_steps())
    chosen = next((s for s in saved if str(s) == str(step)), None)
    if step == "best":
        chosen = manager.best_step()
    elif step in (None, "latest"):
        chosen = manager.latest_step()
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
        DamagedCheckpointError: it is not what was saved; says what is wrong with it.
    """
    chosen, manager = saved_step(run_dir, step), _reader(run_dir)
    if problem := damage(checkpoints_folder(run_dir) / f"step_{chosen}"):
        others = [other for other in sorted(manager.all_steps()) if other != chosen]
        raise DamagedCheckpointError(
            f"the checkpoint of step {chosen} in {run_dir} is damaged: {problem}; valid: another "
            f"step of {others}, or the training command again, which goes on from the newest sound "
            "one"
        )
    folder = user_path(run_dir) / DESCRIPTION
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
    described = read_json(folder / SOURCE)
    lora, checksum = described.pop("lora", None), described.pop("base_checksum", None)
    source = ModelSource(**described)
    config = decoder_config(source.hf_config)
    if lora is not None:
        lora = Lora(**lora | {"targets": tuple(lora["targets"])})
    return source, dataclasses.replace(config, lora=lora), checksum


def _reader(run_dir: str, *, ranked: bool = False) -> ocp.CheckpointManager:
    """What reads checkpoints; only where they are `ranked` does it read what each achieved."""
    return ocp.CheckpointManager(
        checkpoints_folder(run_dir),
        item_handlers=ocp.PyTreeCheckpointHandler(),
        options=ocp.CheckpointManagerOptions(
            best_fn=(lambda metrics: metrics[METRIC]) if ranked else None,
            best_mode="min",
            step_prefix="step",
            read_only=True,
        ),
    )
