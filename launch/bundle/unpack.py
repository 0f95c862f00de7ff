"""Checks, joins and installs a bundle, and starts a command from it; without a network.

    python3 unpack.py --to FOLDER [-- COMMAND …]

Needs nothing but the Python that the bundle was gathered for. FOLDER gets project/ (where COMMAND
starts), models/, data/, wheels/ and venv/. Packages that the bundle leaves out, as the machine has
them, are those of the Python that runs this. Started again, it goes on where it was stopped, and
only starts the command once all is installed.
"""

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKSUMS = "SHA256SUMS"


def main() -> None:
    """Runs the command."""
    command = []
    words = sys.argv[1:]
    if "--" in words:
        words, command = words[: words.index("--")], words[words.index("--") + 1 :]
    parser = argparse.ArgumentParser(
        prog="python3 unpack.py", usage="%(prog)s --to FOLDER [--in_place] [-- COMMAND …]",
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--bundle", type=Path, default=HERE, help="folder of the pieces")
    parser.add_argument("--to", type=Path, required=True, help="folder to unpack to")
    parser.add_argument(
        "--in_place", action="store_true",
        help="install into the Python that runs this, instead of an environment in FOLDER",
    )  # fmt: skip
    arguments = parser.parse_args(words)
    digest, pieces = check(arguments.bundle)
    about = json.loads((arguments.bundle / "bundle.json").read_text())
    _check_python(about["python"])
    to = arguments.to.resolve()
    to.mkdir(parents=True, exist_ok=True)
    _once(to / ".unpacked", digest, lambda: join(pieces, to))
    python = Path(sys.executable)
    if not arguments.in_place:
        python = to / "venv" / "bin" / "python"
    _once(to / ".installed", f"{digest} {python}", lambda: install(about, to, python))
    variables = _variables(to, python)
    if not command:
        print(f"ready:   source {to}/env.sh; cd {to}/project")
        return
    os.chdir(to / "project")
    os.execvpe(command[0], command, os.environ | variables)


def check(folder: Path) -> tuple[str, list[Path]]:
    """What the pieces are, once all are there as they were written.

    Returns:
        A name for the content, and the pieces in order.

    Raises:
        SystemExit: 2, and which files are missing or damaged.
    """
    listed = folder / CHECKSUMS
    if not listed.is_file():
        _refuse(f"{listed} is missing; it is written when all pieces are")
    text = listed.read_text()
    wanted = dict(reversed(line.split("  ", 1)) for line in text.splitlines())
    missing = [name for name in wanted if not (folder / name).is_file()]
    present = [name for name in wanted if name not in missing]
    damaged = [name for name in present if _checksum(folder / name) != wanted[name]]
    if missing or damaged:
        problems = [f"{name} is missing" for name in missing]
        problems += [f"{name} is damaged" for name in damaged]
        _refuse("\n".join(problems) + f"\ncopy {'it' if len(problems) == 1 else 'them'} again")
    pieces = [folder / name for name in wanted if name.startswith("part.")]
    print(f"checked  {len(pieces)} pieces", flush=True)
    return hashlib.sha256(text.encode()).hexdigest(), pieces


def join(pieces: list[Path], to: Path) -> None:
    """Extract the archive that the pieces are."""
    print(f"joining  into {to}", flush=True)
    joined = io.BufferedReader(_Joined(pieces))
    with tarfile.open(fileobj=joined, mode="r|gz") as archive:
        archive.extractall(to, filter="data")


class _Joined(io.RawIOBase):
    """Files read one after the other."""

    def __init__(self, files: list[Path]):
        self._waiting = list(files)
        self._file = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while True:
            if self._file is None:
                if not self._waiting:
                    return 0
                self._file = self._waiting.pop(0).open("rb")
            count = self._file.readinto(buffer)
            if count:
                return count
            self._file.close()
            self._file = None


def install(about: dict, to: Path, python: Path) -> None:
    """Install the wheels into an environment, which is made if it is not this Python's own."""
    if python != Path(sys.executable):
        _make_environment(to / "venv", see_others=bool(about["there"]))
    print(f"installing {len(about['wheels'])} packages", flush=True)
    wheels = to / "wheels"
    pip = [str(python), str(next(wheels.glob("pip-*.whl")) / "pip"), "--disable-pip-version-check"]
    quiet = ["install", "--quiet", "--no-index"]
    _run([*pip, *quiet, "--find-links", str(wheels), *about["requirements"]])
    alone = sorted(map(str, (to / "alone").glob("*.whl")))
    if alone:
        _run([*pip, *quiet, "--no-deps", *alone])
    _run([str(python), "-c", "import adakd_jax"])


def _make_environment(folder: Path, *, see_others: bool) -> None:
    # Without pip: distributions leave out what `venv` would need for it, and the bundle has one.
    others = ["--system-site-packages"] if see_others else []
    _run([sys.executable, "-m", "venv", "--clear", "--without-pip", *others, str(folder)])
    if not see_others or sys.prefix == sys.base_prefix:
        return
    # This Python is an environment itself, whose packages are not those of the system.
    site = next(folder.glob("lib/python*/site-packages"))
    paths = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    (site / "beside.pth").write_text("".join(f"{path}\n" for path in paths))


def _variables(to: Path, python: Path) -> dict[str, str]:
    """What the command is started with; env.sh has the same."""
    variables = {
        "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "HF_HUB_OFFLINE": "1",
        "PIP_NO_INDEX": "1",
        "PYTHONUNBUFFERED": "1",
        "BUNDLE": str(to),
    }
    lines = [f'export {name}="{value}"\n' for name, value in variables.items() if name != "PATH"]
    lines.append(f'export PATH="{python.parent}:$PATH"\n')
    (to / "env.sh").write_text("".join(lines))
    return variables


def _once(mark: Path, content: str, act) -> None:
    """Act, unless that was done to the end already."""
    if not mark.is_file() or mark.read_text() != content:
        mark.unlink(missing_ok=True)
        act()
        mark.write_text(content)


def _check_python(wanted: str) -> None:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if here != wanted:
        _refuse(f"the bundle is for Python {wanted}, this is {here}; start it with python{wanted}")


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False)
    if done.returncode != 0:
        _refuse(f"failed: {' '.join(command)}")


def _refuse(message: str) -> None:
    print(f"unpack: {message}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
