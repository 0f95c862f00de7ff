"""Bundles: what is gathered, how it is cut, and how it is put together on the other machine."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from launch.bundle import unpack
from launch.bundle.pieces import CHECKSUMS, write_checksums, write_pieces
from launch.bundle.wheels import _lacking, platform_tags, read_there, what_failed

ROOT = Path(__file__).parents[2]
SIZE = 10_000


@pytest.fixture
def files(tmp_path):
    """A file that does not compress, a program, and an empty file."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "large").write_bytes(random.Random(0).randbytes(3 * SIZE))
    (folder / "run").write_text("#!/bin/sh\n")
    (folder / "run").chmod(0o700)
    (folder / "empty").touch()
    return [(f"data/{path.name}", path) for path in sorted(folder.iterdir())]


@pytest.fixture
def bundle(files, tmp_path):
    out = tmp_path / "bundle"
    out.mkdir()
    write_checksums(out, write_pieces(out, files, SIZE))
    return out


def test_pieces_are_joined_to_the_same_files(bundle, files, tmp_path):
    parts = sorted(bundle.glob("part.*"))
    assert len(parts) == 4 and all(0 < part.stat().st_size <= SIZE for part in parts)
    _, pieces = unpack.check(bundle)
    assert pieces == parts
    unpack.join(pieces, tmp_path / "there")
    for name, path in files:
        assert (tmp_path / "there" / name).read_bytes() == path.read_bytes()
    assert os.access(tmp_path / "there/data/run", os.X_OK)


def test_the_same_files_give_the_same_pieces(bundle, files, tmp_path):
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    for _, path in files:
        os.utime(path, (1, 1))
    write_checksums(bundle, write_pieces(bundle, files, SIZE))
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    write_pieces(bundle, files[:1], SIZE)
    assert not (bundle / CHECKSUMS).exists() and not (bundle / "part.001").exists()


def test_missing_and_damaged_pieces_are_named(bundle, capsys):
    (bundle / "part.000").unlink()
    content = bytearray((bundle / "part.002").read_bytes())
    content[100] ^= 1
    (bundle / "part.002").write_bytes(content)
    with pytest.raises(SystemExit) as refused:
        unpack.check(bundle)
    said = capsys.readouterr().err
    assert refused.value.code == 2
    assert "part.000 is missing\npart.002 is damaged\ncopy them again" in said
    assert "part.001" not in said
    (bundle / CHECKSUMS).unlink()
    with pytest.raises(SystemExit):
        unpack.check(bundle)
    assert f"{CHECKSUMS} is missing" in capsys.readouterr().err


def test_unpacking_goes_on_after_what_was_done_to_the_end(tmp_path):
    done: list[int] = []

    def fails():
        raise OSError

    with pytest.raises(OSError):
        unpack._once(tmp_path / "mark", "one", fails)
    for content in ("one", "one", "two"):
        unpack._once(tmp_path / "mark", content, lambda: done.append(0))
    assert len(done) == 2


def test_another_python_is_refused(bundle):
    (bundle / "bundle.json").write_text(json.dumps({"python": "3.9"}))
    done = subprocess.run(
        [sys.executable, unpack.__file__, "--bundle", bundle, "--to", bundle / "there"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "start it with python3.9" in done.stderr
    assert not (bundle / "there").exists()


def test_what_is_there_is_read_as_pip_writes_it():
    lines = [
        "jax==0.11.2", "torch==2.9.0+cu130", "Jinja2", "ml_dtypes[x]==1.0", "# a comment", "",
        "other @ file:///home/other", "-e /home/mine", "a==1 ; python_version<'4'",
    ]  # fmt: skip
    found, unread = read_there(lines)
    assert found == {
        "jax": "0.11.2", "torch": "2.9.0", "jinja2": None, "ml-dtypes": "1.0", "other": None,
        "a": "1",
    }  # fmt: skip
    assert unread == ["-e /home/mine"]


def test_older_wheels_are_taken_too():
    tags = platform_tags("manylinux_2_28_x86_64")
    assert tags[0] == "manylinux_2_28_x86_64" and tags[-1] == "manylinux1_x86_64"
    assert tags.index("manylinux_2_17_x86_64") + 1 == tags.index("manylinux2014_x86_64")
    assert platform_tags("macosx_14_0_arm64") == ["macosx_14_0_arm64"]


def test_what_is_there_has_what_it_requires():
    def entry(name, *requires):
        return {"metadata": {"name": name, "version": "1", "requires_dist": requires}}

    report = [
        entry("mine", "jax", "other"), entry("jax", "ml_dtypes>=1", "plugin; extra == 'cuda'"),
        entry("ml-dtypes", "numpy"), entry("numpy"), entry("plugin"), entry("other", "numpy"),
    ]  # fmt: skip
    assert _lacking(report, set()) == [
        "jax==1", "mine==1", "ml-dtypes==1", "numpy==1", "other==1", "plugin==1",
    ]  # fmt: skip
    assert _lacking(report, {"jax"}) == ["mine==1", "other==1", "plugin==1"]


def test_versions_that_exclude_each_other_are_named():
    out = (
        "Collecting a\n\nThe conflict is caused by:\n    mine 1 depends on a>=2\n"
        "    The user requested (constraint) a==1\n\nTo fix this you could try to:\n1. loosen\n"
    )
    said = what_failed(out, "WARNING: old\nERROR: ResolutionImpossible\n").splitlines()
    assert said[:4] == [
        "ERROR: ResolutionImpossible", "The conflict is caused by:",
        "    mine 1 depends on a>=2", "    The user requested (constraint) a==1",
    ]  # fmt: skip
    assert said[4].startswith("valid: ") and len(said) == 5
    assert what_failed("Collecting a\n", "ERROR: no such\n") == "ERROR: no such"


def gathering(*arguments):
    return subprocess.run(
        ["bash", "launch/bundle.sh", *arguments], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PYTHON": sys.executable},
    )  # fmt: skip


def test_mistakes_are_refused_before_anything_is_gathered(tmp_path):
    out = tmp_path / "out"
    for flags, said in (
        (["--data", "nowhere.jsonl"], "nowhere.jsonl is not there"),
        (["--model", "owner/name"], "package:NAME/FILE"),
        (["--there", "nowhere.txt"], "no such file"),
        (["--piece", "0"], "MiB, above 0"),
    ):
        done = gathering(out, *flags)
        assert done.returncode == 2 and said in done.stderr
    assert not out.exists()


def test_help_has_an_example_and_every_flag():
    text = gathering("--help").stdout
    assert "unpack.py --to" in text and "PYTHON" in text
    for flag in ("--python", "--there", "--without", "--model", "--data", "--piece"):
        assert flag in text


@pytest.mark.slow
def test_a_bundle_runs_in_an_empty_environment_without_an_index(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "Say it.", "output": "It."}\n')
    out, there = tmp_path / "bundle", tmp_path / "there"
    done = gathering(out, "--data", rows, "--piece", "64")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pieces " in done.stdout and not (out / "gathered").exists()
    nothing = {"PATH": os.defpath, "HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    nothing |= {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_CONFIG_FILE": os.devnull}
    code = "import adakd_jax, jax; jax.jit(abs)(1); print(open('../data/rows.jsonl').read())"
    command = [sys.executable, out / "unpack.py", "--to", there, "--"]
    for words in (["python", "-c", code], ["python", "-m", "adakd_jax.train", "--help"]):
        done = subprocess.run([*command, *words], capture_output=True, text=True, env=nothing)
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("Say it." in done.stdout) or ("--config" in done.stdout)
