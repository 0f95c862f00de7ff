"""What run folders hold, read for the page; nothing is computed again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from etils import epath

from adakd_jax.config.provenance import CONFIG_FILE, read_starts
from adakd_jax.config.yaml_file import read_yaml
from adakd_jax.training.records import read_records
from adakd_jax.user_path import user_path

_EVALUATIONS = ("teacher", "before", "after")
_NAMED = 5


@dataclass(frozen=True)
class RunRecord:
    """What a run has left so far.

    Attributes:
        name: short, and different from that of every other run of the page.
        settings: `config.yaml`, nested.
        settings_text: the same as it is written.
        starts: of `run.json`, oldest first.
        story: what the run says of its method and data; empty if it did not get so far.
        train: records of train steps in order.
        held_out: records of held-out evaluations during training in order.
        evaluations: "teacher", "before" and "after", as far as there are any.
        snapshots: of tokens, by rising step.
        pruning: what a pruned student keeps of its teacher; empty for others.
    """

    name: str
    settings: Mapping[str, Any]
    settings_text: str = ""
    starts: Sequence[Mapping[str, Any]] = ()
    story: Mapping[str, Any] = field(default_factory=dict)
    train: Sequence[Mapping[str, Any]] = ()
    held_out: Sequence[Mapping[str, Any]] = ()
    evaluations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    snapshots: Sequence[Mapping[str, Any]] = ()
    pruning: Mapping[str, Any] = field(default_factory=dict)

    @property
    def last_step(self) -> int:
        """The newest step that left a record; 0 before training."""
        return max((record["step"] for record in self.train), default=0)

    @property
    def has_teacher(self) -> bool:
        """Whether there is a teacher."""
        return self.settings.get("teacher") is not None


def read_runs(folders: Sequence[str]) -> list[RunRecord]:
    """Read run folders, local or gs://, in the order given.

    Raises:
        ValueError: one is not a run folder, or a file of it cannot be read; says which, and what
            would be valid.
    """
    return [_read(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]


def _read(folder: str, name: str) -> RunRecord:
    path = user_path(folder)
    if not (path / CONFIG_FILE).is_file():
        raise ValueError(f"{folder} is not a run folder: it has no {CONFIG_FILE}; {_valid(path)}")
    config = read_yaml(str(path / CONFIG_FILE))
    if config.problems:
        problem = config.problems[0]
        raise ValueError(f"{path / CONFIG_FILE}: {problem.message}; valid: {problem.valid}")
    if "run_dir" not in config.values:
        raise ValueError(f"{folder} holds the {CONFIG_FILE} of no run; {_valid(path)}")
    records = read_records(str(path))
    snapshots = [_json(file) for file in _listed(path / "tokens", "step_*.json")]
    story, pruning = path / "student" / "training.json", path / "pruning.json"
    return RunRecord(
        name=name,
        settings=config.values,
        settings_text=(path / CONFIG_FILE).read_text(encoding="utf-8"),
        starts=read_starts(folder),
        story=_json(story) if story.exists() else {},
        train=[record for record in records if record["kind"] == "train"],
        held_out=[record for record in records if record["kind"] == "eval"],
        evaluations=_evaluations(path),
        snapshots=sorted(snapshots, key=lambda snapshot: snapshot["step"]),
        pruning=_json(pruning) if pruning.exists() else {},
    )


def _evaluations(path: epath.Path) -> dict[str, Any]:
    """What was measured; a run of a study keeps it, with other things, in a file of its own."""
    files = {name: path / "evaluation" / f"{name}.json" for name in _EVALUATIONS}
    found = {name: _json(file) for name, file in files.items() if file.exists()}
    of_study = path / "result.json"
    if "after" not in found and of_study.exists():
        result = _json(of_study)
        found["after"] = result["metrics"] | {"answers": result["answers"]}
    return found


def _json(file: epath.Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: {error}; valid: the JSON that the run wrote") from error


def _listed(folder: epath.Path, pattern: str) -> list[epath.Path]:
    return sorted(folder.glob(pattern)) if folder.exists() else []


def _valid(path: epath.Path) -> str:
    """What could have been meant by a folder that is no run."""
    if not path.exists():
        return "no such folder; valid: the run_dir of a training"
    inside = [
        str(file.parent)
        for depth in ("*", "*/*", "*/*/*")
        for file in _listed(path, f"{depth}/metrics.jsonl")
    ]
    if not inside:
        return "valid: the run_dir of a training"
    more = f" and {len(inside) - _NAMED} more" if len(inside) > _NAMED else ""
    return f"valid: the run folders inside it, {', '.join(inside[:_NAMED])}{more}"


def _names(folders: Sequence[str]) -> list[str]:
    """The shortest ends of the paths, from two folders up to all, that differ from each other."""
    parts = [PurePosixPath(str(user_path(folder))).parts for folder in folders]
    if len(set(parts)) < len(parts):
        twice = next(
            folder for folder, its in zip(folders, parts, strict=True) if parts.count(its) > 1
        )
        raise ValueError(f"{twice} is given twice; valid: each run folder once")
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-depth:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return list(folders)
