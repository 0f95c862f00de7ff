"""The wheels that a requirement needs on another machine, without those that it has already."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
_UNBUILT = re.compile(r"No matching distribution found for ([A-Za-z0-9][^\s;(]*)")
_GLIBC = re.compile(r"manylinux_2_(\d+)_(\w+)$")
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_CONFLICT = "The conflict is caused by"
_OTHER_VERSIONS = "what is there at versions that this project takes, or not named as there"
# Wheels of the same files are the same to the byte.
_EPOCH = {"SOURCE_DATE_EPOCH": "315532800"}


class GatherError(Exception):
    """Something cannot be gathered; the message says what, and what would be valid."""


class Target(NamedTuple):
    """The machine that is gathered for.

    Attributes:
        python: its version, as 3.12.
        platform: tag of the newest wheels that it takes, as manylinux_2_28_x86_64.
        there: packages that it has already → version, None if that is not known.
    """

    python: str
    platform: str
    there: Mapping[str, str | None]

    @property
    def flags(self) -> list[str]:
        """What tells pip to choose wheels for it."""
        platforms = [flag for tag in platform_tags(self.platform) for flag in ("--platform", tag)]
        return ["--only-binary=:all:", "--python-version", self.python, *platforms]


def normal(name: str) -> str:
    """A package's name as all of its spellings are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_there(lines: Sequence[str]) -> tuple[dict[str, str | None], list[str]]:
    """Packages out of lines as `pip freeze` prints them, or of bare names.

    Returns:
        name → version without its local part (`+cu128`), None if there is none; and the lines that
        say neither.
    """
    found: dict[str, str | None] = {}
    unread = []
    for line in lines:
        text = line.partition("#")[0].strip()
        if not text:
            continue
        named = text.partition(";")[0].strip()
        match = re.fullmatch(r"([A-Za-z0-9][\w.-]*)(?:\[.*\])?(?:\s*==\s*([^\s;+]+)\S*)?", named)
        at_address = re.match(r"([A-Za-z0-9][\w.-]*)\s*@\s", text)
        if match:
            found[normal(match[1])] = match[2]
        elif at_address:
            found[normal(at_address[1])] = None
        else:
            unread.append(text)
    return found, unread


def platform_tags(platform: str) -> list[str]:
    """The tag and all older ones that its machines take too."""
    newest = _GLIBC.fullmatch(platform)
    if newest is None:
        return [platform]
    minor, machine = int(newest[1]), newest[2]
    tags = []
    for older in range(minor, 4, -1):
        tags.append(f"manylinux_2_{older}_{machine}")
        if older in _LEGACY:
            tags.append(f"{_LEGACY[older]}_{machine}")
    return tags


class Pip:
    """pip of an environment made for gathering, best of the target's own Python version: pip reads
    conditions such as `python_version < "3.13"` with the Python that it runs in.
    """

    def __init__(self, python: Path):
        self._command = [str(python), "-m", "pip", "--disable-pip-version-check"]

    def __call__(self, *arguments: str, folder: Path | None = None) -> None:
        """Run it.

        Raises:
            GatherError: it failed, and what it said.
        """
        done = subprocess.run(
            [*self._command, *arguments], cwd=folder, env=os.environ | _EPOCH,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            said = what_failed(done.stdout, done.stderr)
            raise GatherError(f"pip {arguments[0]} failed:\n{said}")


def what_failed(stdout: str, stderr: str) -> str:
    """What pip says of a failure: its errors, and which versions exclude each other."""
    said = [line for line in stderr.splitlines() if line and not line.startswith("WARNING")]
    _, cause, rest = stdout.partition(_CONFLICT)
    excluding = list(itertools.takewhile(str.strip, rest.splitlines()[1:])) if cause else []
    if excluding:
        excluding = [f"{_CONFLICT}:", *excluding, f"valid: {_OTHER_VERSIONS}"]
    return "\n".join([*said[-25:], *excluding])


@contextmanager
def pip_for(version: str) -> Iterator[Pip]:
    """A pip to gather with, for as long as the context lasts."""
    python = _python(version)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True, capture_output=True)
        pip = Pip(Path(folder) / "bin" / "python")
        pip("install", "--quiet", "--upgrade", "pip")  # reports are as new as 2023
        yield pip


def _python(version: str) -> str:
    named = shutil.which(f"python{version}")
    for candidate in (sys.executable, named):
        if candidate is None:
            continue
        said = subprocess.run(
            [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if said.stdout.strip() == version:
            return candidate
    print(
        f"note: no Python {version} here; requirements that depend on the version are read by "
        f"{sys.executable}, {sys.version_info.major}.{sys.version_info.minor}"
    )
    return sys.executable


def gather_wheels(
    pip: Pip, target: Target, wanted: Sequence[str], built: Path, folder: Path
) -> list[str]:
    """Download the wheels that the target lacks.

    Args:
        pip: to gather with.
        target: what they are for.
        wanted: requirements.
        built: wheels made here; what is published as sources only is added to them.
        folder: where the wheels go; those that are there already are not downloaded again.

    Returns:
        what was gathered, as name==version.

    Raises:
        GatherError: versions that exclude each other, or no wheel for the target.
    """
    report = _resolve(pip, target, wanted, built)
    lacking = _lacking(report, set(target.there))
    folder.mkdir(parents=True, exist_ok=True)
    pip(
        "download", "--quiet", "--no-deps", *target.flags, "--find-links", str(built),
        "--dest", str(folder), "pip", *lacking,
    )  # fmt: skip
    _drop_others(folder, lacking)
    return lacking


def _resolve(pip: Pip, target: Target, wanted: Sequence[str], built: Path) -> list[dict]:
    """What pip would install of the target's wheels, with all that is there at its version."""
    with tempfile.TemporaryDirectory() as work:
        constraints, report = Path(work) / "there.txt", Path(work) / "report.json"
        fixed = {name: version for name, version in target.there.items() if version is not None}
        constraints.write_text("".join(f"{name}=={fixed[name]}\n" for name in fixed))
        while True:
            try:
                pip(
                    "install", "--dry-run", "--ignore-installed", "--target", work,
                    *target.flags, "--find-links", str(built), "--constraint", str(constraints),
                    "--report", str(report), *wanted,
                )  # fmt: skip
                return json.loads(report.read_text())["install"]
            except GatherError as error:
                unbuilt = _UNBUILT.search(str(error))
                if unbuilt is None or not _build(pip, unbuilt[1], built):
                    raise


def _build(pip: Pip, requirement: str, built: Path) -> bool:
    """Make the wheel of a package that is published as sources only; False if that gives none that
    runs anywhere.
    """
    before = {path.name for path in built.iterdir()}
    try:
        pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(built), requirement)
    except GatherError:
        return False
    new = [path for path in built.iterdir() if path.name not in before]
    for path in new:
        if not path.name.endswith("-none-any.whl"):
            path.unlink()
            return False
    if new:
        print(f"built    {new[0].name}, published as sources only", flush=True)
    return bool(new)


def _lacking(report: Sequence[dict], there: set[str]) -> list[str]:
    """Those of the report that are not there: neither named so, nor required by what is."""
    found = {normal(entry["metadata"]["name"]): entry["metadata"] for entry in report}
    waiting = [name for name in there if name in found]
    known = set(there)
    while waiting:
        for text in found[waiting.pop()].get("requires_dist", []):
            requirement, _, condition = text.partition(";")
            match = _NAME.match(requirement)
            name = normal(match[1]) if match else ""
            # What hangs on a condition may not be there.
            if not condition.strip() and name in found and name not in known:
                known.add(name)
                waiting.append(name)
    return sorted(f"{name}=={found[name]['version']}" for name in found.keys() - known)


def _drop_others(folder: Path, lacking: Sequence[str]) -> None:
    """Remove wheels of an earlier gathering."""
    wanted = {tuple(each.split("==")) for each in lacking}
    for wheel in folder.glob("*.whl"):
        name, version = wheel.name.split("-")[:2]
        if normal(name) != "pip" and (normal(name), version) not in wanted:
            wheel.unlink()
