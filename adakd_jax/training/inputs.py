"""What a run reads, by digest, so that another start of it knows whether that is still the same."""

import json
from collections.abc import Mapping

from etils import epath

from adakd_jax.config import RunConfig, StudentCheckpoint, StudentRandom, TeacherConfig
from adakd_jax.console import Console
from adakd_jax.data.cache import content_key
from adakd_jax.data.examples import tokenizer_digest
from adakd_jax.data.row_source import RowSource
from adakd_jax.hf.digests import Digests, adapter_digests, digests_of_files, model_digests
from adakd_jax.hf.locate import CONFIG_FILES, locate
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.teacher_cache.manifest import local_cache
from adakd_jax.training.checkpoint import has_checkpoints
from adakd_jax.user_path import user_path
from adakd_jax.whole_file import write_whole

FILE = "inputs.json"
ACCEPT = "checkpoint.accept_changed_inputs"
_DIGITS = 12  # of a digest, which is compared as it is shown
# Of each of a cache's many files, which are compressed: another teacher changes every block.
_BLOCKS_OF_CACHE = 8


class OtherInputsError(ValueError):
    """What a run folder's settings name is not what the run began with; all changes are listed."""


class Inputs:
    """The digests of a run's inputs: those that it began with, and those of this start.

    Attributes:
        changed: 'item: old -> new' for each one that has changed and was accepted.
    """

    def __init__(self, config: RunConfig, console: Console):
        """Read what the run began with, if it has anything to show for it.

        Raises:
            ValueError: the file is not JSON.
        """
        self._run_dir, self._console = config.run_dir, console
        self._accepts = config.checkpoint.accept_changed_inputs
        self._file = user_path(config.run_dir) / FILE
        self._found: Digests = {}
        self.changed: list[str] = []
        self._known: Digests | None = None
        if not _has_begun(config.run_dir):
            return
        if self._file.exists():
            self._known = _read(self._file)
        else:
            console.print(
                "note     this run began with a version that kept no digests of its rows, weights "
                "and tokenizer: whether they are the same is not known; from now on they are kept",
                soft_wrap=True,
            )

    def check(self, found: Mapping[str, str]) -> None:
        """Compare some inputs with those that the run began with.

        Args:
            found: digests by item. Of items 'who: file', all of one `who` are given together, so
                that files that are gone are noticed.

        Raises:
            OtherInputsError: some have changed, and that is not accepted.
        """
        self._found |= found
        changes = _changes(self._known, found)
        if not changes:
            return
        listed = "\n".join(f"  {line}" for line in changes)
        if not self._accepts:
            raise OtherInputsError(
                f"{self._run_dir} holds a run of other inputs than there are now (old -> new):\n"
                f"{listed}\nvalid: the old ones in their place, to continue that run; another "
                f"--run_dir, to start a new one; or --{ACCEPT} true, to go on with these (what was "
                "measured before training stays as it is)"
            )
        self.changed += changes
        self._console.print(
            f"warning: going on with other inputs than the run began with (old -> new):\n{listed}",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )

    def write(self) -> None:
        """Keep those of this start. Scope: one process of a run calls this."""
        write_whole(self._file, json.dumps(self._found, indent=2, ensure_ascii=False) + "\n")


def file_inputs(config: RunConfig) -> Digests:
    """Digests of the model files and the teacher's cache that a run's settings name.

    Raises:
        ModelNotFoundError: a model or adapter cannot be reached.
        TeacherCacheError: the cache is remote.
    """
    found: Digests = {}
    if config.teacher is not None and config.loads_teacher:
        found |= teacher_digests(config.teacher)
    if config.teacher is not None and config.teacher.cache is not None:
        files = [file for file in local_cache(config.teacher.cache).glob("*") if file.is_file()]
        key = content_key(files=digests_of_files(files, _BLOCKS_OF_CACHE))
        found["teacher's cache"] = f"{len(files)} files, {told_of_key(key)}"
    student = config.student
    if isinstance(student, StudentCheckpoint):
        found |= _of("student", model_digests(student.path, student.revision))
    elif isinstance(student, StudentRandom) and isinstance(student.config, str):
        place = locate(student.config, files=CONFIG_FILES)
        file = place / "config.json" if place.is_dir() else place
        found |= _of("student", digests_of_files([file] if file.is_file() else []))
    if student.adapter is not None:
        found |= _of("student's adapter", adapter_digests(student.adapter))
    return found


def teacher_digests(config: TeacherConfig) -> Digests:
    """Digests of the teacher's files, and of its adapter's."""
    found = _of("teacher", model_digests(config.path, config.revision, config.fallback))
    if config.adapter is not None:
        found |= _of("teacher's adapter", adapter_digests(config.adapter))
    return found


def teacher_key(config: TeacherConfig) -> str:
    """Names the teacher's weights by the content of their files."""
    return content_key(files=teacher_digests(config))


def told_of_rows(rows: RowSource | None) -> str:
    """The digest of rows, as it is compared and shown."""
    return "none" if rows is None else f"{len(rows):,} rows, {told_of_key(rows.key)}"


def told_of_tokenizer(student: Pretrained) -> str:
    """The digest of a student's tokenizer, likewise."""
    return "none" if student.tokenizer is None else told_of_key(tokenizer_digest(student.tokenizer))


def told_of_key(key: str) -> str:
    """A digest as it is compared and shown."""
    return f"digest {key[:_DIGITS]}"


def _of(who: str, digests: Digests) -> Digests:
    return {f"{who}: {name}": digest for name, digest in digests.items()}


def _changes(known: Mapping[str, str] | None, found: Mapping[str, str]) -> list[str]:
    if known is None:
        return []
    groups = {name.partition(": ")[0] for name in found}
    gone = [name for name in known if name not in found and name.partition(": ")[0] in groups]
    pairs = {name: (known.get(name), found.get(name)) for name in (*found, *gone)}
    return [
        f"{name}: {old or 'absent'} -> {new or 'absent'}"
        for name, (old, new) in pairs.items()
        if old != new
    ]


def _has_begun(run_dir: str) -> bool:
    """Whether an earlier start has left what depends on its inputs: a state, or a measurement."""
    measured = user_path(run_dir) / "evaluation"
    return has_checkpoints(run_dir) or (measured.exists() and any(measured.glob("*.json")))


def _read(file: epath.Path) -> Digests:
    try:
        return json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{file}: {error}; valid: the file as it was written, or none, to go on unchecked"
        ) from error
