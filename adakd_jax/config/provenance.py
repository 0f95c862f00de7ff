"""What a run folder says about its origin: settings, command, versions, revision, devices.

Of the environment nothing is written, so no secret in it can leak.
"""

import datetime
import json
import platform
import shlex
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from etils import epath
from pydantic import ValidationError

from adakd_jax.config.schema import written
from adakd_jax.config.stage import Stage
from adakd_jax.config.yaml_file import dump_yaml, read_yaml
from adakd_jax.user_path import user_path
from adakd_jax.whole_file import write_whole

CONFIG_FILE = "config.yaml"
RUN_FILE = "run.json"
PACKAGES = (
    "adakd_jax",
    "jax",
    "jaxlib",
    "libtpu",
    "flax",
    "optax",
    "orbax-checkpoint",
    "transformers",
    "sentencepiece",
    "jinja2",
    "markupsafe",
    "safetensors",
    "qwix",
    "huggingface_hub",
    "gguf",
    "tensorflow-datasets",
    "importlib_resources",
    "array_record",
    "grain",
    "pyarrow",
    "pydantic",
    "pydantic-settings",
    "jaxtyping",
    "rich",
    "tensorboardX",
    "matplotlib",
    "rouge-score",
    "etils",
    "numpy",
)
# What may differ between two starts of one run: it changes no update of the student.
_FREE = (
    "run_dir",
    "data.cache_dir",
    "mesh.",
    "processes.",
    "checkpoint.",
    "evaluation.",
    "logging.",
    "export.",
)
_ABSENT = "absent"


class OtherRunError(ValueError):
    """A run folder holds a run with other settings; the message lists the differences."""


def write_provenance(
    run_dir: str,
    config: Stage,
    argv: Sequence[str],
    devices: Iterable[str] = (),
    changed_inputs: Sequence[str] = (),
) -> None:
    """Writes all settings to `config.yaml`, and adds a record of this start to `run.json`.

    Args:
      run_dir: folder of the run, local or gs://; made if absent.
      config: the settings of this start.
      argv: the exact command, e.g. `sys.orig_argv`.
      devices: what the run computes on, e.g. `map(str, jax.devices())`.
      changed_inputs: 'item: old -> new' of rows and weights that are others than before.

    Scope: one process of a run calls this.
    """
    folder = user_path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    starts = read_starts(run_dir)
    starts.append(
        {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": shlex.join(argv),
            "changed_settings": _changes_since_last_start(folder, config),
            "changed_inputs": list(changed_inputs),
            "git": _git_revision(),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "devices": list(devices),
            "packages": package_versions(),
        }
    )
    write_whole(folder / RUN_FILE, json.dumps(starts, indent=2, ensure_ascii=False) + "\n")
    write_whole(folder / CONFIG_FILE, dump_yaml(config))


def read_starts(run_dir: str) -> list[dict[str, Any]]:
    """Returns the records of all starts of a run, oldest first; none if it never started.

    Raises:
      ValueError: the file is not JSON, for example edited by hand.
    """
    file = user_path(run_dir) / RUN_FILE
    if not file.exists():
        return []
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: {error}; valid: a JSON list, or no such file") from error


def config_differences(old: Stage | Mapping[str, Any], new: Stage | Mapping[str, Any]) -> list[str]:
    """Returns 'key: old -> new' for every setting that differs, in the order of `new`."""
    before, after = _leaves(old), _leaves(new)
    keys = [*after, *(key for key in before if key not in after)]
    return [
        f"{key}: {_shown(before, key)} -> {_shown(after, key)}"
        for key in keys
        if key not in before or key not in after or before[key] != after[key]
    ]


def check_same_run(run_dir: str, config: Stage) -> None:
    """Refuses to continue a run folder with settings that would change the run.

    Free to change are where and how often things are written and evaluated: `run_dir`,
    `data.cache_dir`, `checkpoint`, `evaluation`, `logging` and `export`; and what the run computes
    on: `mesh` and `processes`.

    Raises:
      OtherRunError: a setting differs that shapes the student; all differences are listed.
    """
    file = user_path(run_dir) / CONFIG_FILE
    if not file.exists():
        return
    differences = config_differences(stored_config(file, type(config)), config)
    refused = [line for line in differences if not line.startswith(_FREE)]
    if refused:
        listed = "\n".join(f"  {line}" for line in refused)
        raise OtherRunError(
            f"{run_dir} holds a run with other settings (old -> new):\n{listed}\n"
            "valid: the old values, to continue that run; or another --run_dir, to start a new one"
        )


def check_writable(run_dir: str) -> None:
    """Make the run folder, before any work, and write to it.

    Raises:
      OSError: it cannot be made or written to; says which folder and why.
    """
    folder = user_path(run_dir)
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"run_dir: {folder} cannot be written to ({error.strerror or error}); "
            "valid: a folder that can be made or written to, with room for checkpoints"
        ) from error


def package_versions() -> dict[str, str]:
    """Returns the versions of the packages that a run depends on, as far as installed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _changes_since_last_start(folder: epath.Path, config: Stage) -> list[str]:
    file = folder / CONFIG_FILE
    if not file.exists():
        return []
    return config_differences(stored_config(file, type(config)), config)


def stored_config(file: epath.Path, model: type[Stage]) -> Stage | Mapping[str, Any]:
    """Reads a stored config; settings that are newer than the run get their defaults.

    Args:
      file: the config.yaml of a run.
      model: of the settings.

    Returns:
      The settings; where this version does not know some of them, a mapping of what is stored.

    Raises:
      OtherRunError: the file is not YAML.
    """
    stored = read_yaml(str(file))
    if stored.problems:
        problem = stored.problems[0]
        raise OtherRunError(f"{problem.key}: {problem.message}; valid: {problem.valid}")
    try:
        return model.model_validate(stored.values)
    except ValidationError:
        return stored.values


def _leaves(config: Stage | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    values = config.model_dump(mode="json") if isinstance(config, Stage) else config
    leaves: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            leaves.update(_leaves(value, f"{prefix}{name}."))
        else:
            leaves[prefix + name] = value
    return leaves


def _shown(leaves: Mapping[str, Any], key: str) -> str:
    return written(leaves[key]) if key in leaves else _ABSENT


def _git_revision() -> dict[str, Any] | None:
    """Returns the revision of this package's own checkout; None if it is not run from one."""
    folder = Path(__file__).parent
    # An environment may lie inside somebody else's repository, which does not track this file.
    if _git(folder, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    revision = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    if revision is None or changes is None:
        return None
    return {"revision": revision, "dirty": bool(changes)}


def _git(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *command],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
