"""A path is a file first and a pattern second, alone, in a list, in a folder and on the hub."""

import json

import huggingface_hub.constants
import pytest

from adakd_jax.config.data import Columns, FileSource, HubSource
from adakd_jax.data.files import DataNotFoundError, source_files
from adakd_jax.data.sources import open_rows
from tests.hf.bucket import use_bucket

ROW = json.dumps({"instruction": "Add.", "output": "2"}) + "\n"


@pytest.fixture
def folder(tmp_path):
    for name in (
        *("exp [v1]/rows.jsonl", "exp [v1]/rows[0].jsonl", "exp v/rows.jsonl", "rows?.jsonl"),
        *("rows1.jsonl", "rows2.jsonl", "rows[12].jsonl", "run[1]/other.jsonl", "run1/part.jsonl"),
    ):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(ROW)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("exp [v1]/rows.jsonl", ["exp [v1]/rows.jsonl"]),
        ("exp [v1]/*.jsonl", ["exp [v1]/rows.jsonl", "exp [v1]/rows[0].jsonl"]),
        ("exp [v1]/rows[0].jsonl", ["exp [v1]/rows[0].jsonl"]),
        ("exp [v]/rows.jsonl", ["exp v/rows.jsonl"]),
        ("rows[12].jsonl", ["rows[12].jsonl"]),
        ("rows[1-2].jsonl", ["rows1.jsonl", "rows2.jsonl"]),
        ("rows?.jsonl", ["rows?.jsonl"]),
        ("run[1]/part.jsonl", ["run1/part.jsonl"]),  # not in the folder that is called so
        ("**/p*.jsonl", ["run1/part.jsonl"]),
    ],
)
def test_a_path_is_literal_before_it_is_a_pattern(folder, monkeypatch, path, found):
    files = source_files(FileSource(path=str(folder / path)))
    assert [str(file.relative_to(folder)) for file in files] == found
    monkeypatch.chdir(folder)
    files = source_files(FileSource(path=(path, "rows1.jsonl")))
    assert list(map(str, files)) == [*found, "rows1.jsonl"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("exp [v1]/rows[0].jsonl", ["exp [v1]/rows[0].jsonl"]),
        ("exp [v1]/*.jsonl", ["exp [v1]/rows.jsonl", "exp [v1]/rows[0].jsonl"]),
        ("rows[12].jsonl", ["rows1.jsonl", "rows2.jsonl"]),
        ("rows1.jsonl", ["rows1.jsonl"]),
    ],
)
def test_so_is_a_path_in_a_bucket(monkeypatch, path, found):
    bucket = use_bucket(monkeypatch)
    for name in ("exp [v1]/rows.jsonl", "exp [v1]/rows[0].jsonl", "rows1.jsonl", "rows2.jsonl"):
        bucket.pipe_file(f"gs://bucket/data/{name}", ROW.encode())
    files = source_files(FileSource(path=f"gs://bucket/data/{path}"))
    assert [str(file).partition("/data/")[2] for file in files] == found
    assert all(str(file).startswith("gs://bucket/") for file in files)


def test_what_is_neither_is_not_found(folder):
    with pytest.raises(DataNotFoundError, match=r"no file at '.*rows\[3\]\.jsonl'"):
        source_files(FileSource(path=str(folder / "rows[3].jsonl")))


def test_names_on_the_hub_are_literal_first_too(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    data = tmp_path / "hub" / "datasets--owner--talks"
    snapshot = data / "snapshots" / ("a" * 40)
    (snapshot / "data [v1]").mkdir(parents=True)
    (data / "refs").mkdir()
    (data / "refs" / "main").write_text("a" * 40)
    (snapshot / "data [v1]" / "train[0].jsonl").write_text(ROW)
    (snapshot / "data [v1]" / "train0.jsonl.gz").write_text("not read")
    for files in ("data [v1]/train[0].jsonl", "data [v1]/train[0]", "data [v1]/*.jsonl"):
        source = HubSource(name="owner/talks", files=files)
        rows = open_rows(source, columns=Columns(), cache_dir=tmp_path / "cache")
        assert [row["origin"] for row in rows] == ["train[0].jsonl:1"]


def test_tables_beside_the_rows_of_a_hub_data_set_are_not_mixed_in(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    data = tmp_path / "hub" / "datasets--owner--talks"
    snapshot = data / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (data / "refs").mkdir()
    (data / "refs" / "main").write_text("a" * 40)
    (snapshot / "train.jsonl").write_text(ROW)
    (snapshot / "leaderboard.csv").write_text("model,score\n")
    source = HubSource(name="owner/talks")
    assert len(open_rows(source, columns=Columns(), cache_dir=tmp_path / "cache")) == 1
