import json
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pyarrow
import pyarrow.parquet
import pytest

from adakd_jax.config.data import Columns, FileSource
from adakd_jax.data import cache
from adakd_jax.data.files import DataNotFoundError
from adakd_jax.data.sources import EmptyDataError, MalformedRowsError, open_rows

ROWS = [
    {"instruction": "Add.", "input": "1 + 1", "output": "2"},
    {"instruction": "Grüße", "input": "", "output": ["Hallo", "Hi"]},
    {"instruction": "Third", "input": "x\ny", "output": "z"},
]


def contents(rows):
    return [{name: value for name, value in row.items() if name != "origin"} for row in rows]


def test_rows_come_in_order_with_file_and_line(write_lines, open_file):
    rows = open_file(write_lines(ROWS[0], "", ROWS[1]))
    assert [row["origin"] for row in rows] == ["rows.jsonl:1", "rows.jsonl:3"]
    assert rows[-1]["outputs"] == ["Hallo", "Hi"]
    assert rows.report.summary() == "rows.jsonl: 2 rows"
    with pytest.raises(IndexError):
        rows[2]


def test_json_lines_json_list_and_parquet_give_equal_rows(write_lines, open_file, tmp_path):
    lines = open_file(write_lines(*ROWS))
    listed = write_lines(json.dumps(ROWS, indent=1), name="rows.json")
    as_lines = write_lines(*ROWS, name="lines.json")
    table = [
        {**row, "output": row["output"] if isinstance(row["output"], list) else [row["output"]]}
        for row in ROWS
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), tmp_path / "rows.parquet")
    for path in (listed, as_lines, tmp_path / "rows.parquet"):
        assert contents(open_file(path)) == contents(lines)


def test_conversations_survive_every_format(write_lines, open_file, tmp_path):
    talk = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([talk]), tmp_path / "talk.parquet")
    expected = contents(open_file(write_lines(talk)))
    assert expected[0]["messages"] == talk["messages"]
    assert contents(open_file(tmp_path / "talk.parquet")) == expected


def test_a_malformed_line_names_file_line_and_reason(write_lines, open_file):
    path = write_lines(ROWS[0], '{"instruction": "a" "output"}', {"instruction": "b"})
    with pytest.raises(MalformedRowsError) as error:
        open_file(path)
    message = str(error.value)
    assert "2 of 3 rows" in message
    assert "rows.jsonl:2: not valid JSON: Expecting ',' delimiter at column 21" in message
    assert "rows.jsonl:3: column 'output' is missing" in message
    assert "on_error: skip" in message


def test_skip_counts_and_reports(write_lines, open_file):
    path = write_lines(ROWS[0], "[1]", "nonsense", ROWS[1])
    for _ in range(2):  # the second time from the prepared files
        rows = open_file(path, on_error="skip")
        assert (len(rows), rows.report.skipped) == (2, 2)
        assert "rows.jsonl:2: expected an object" in rows.report.summary()
    with pytest.raises(MalformedRowsError):  # prepared under 'skip', asked for under 'fail'
        open_file(path)


def test_a_long_list_of_malformed_lines_is_shortened(write_lines, open_file):
    rows = open_file(write_lines(ROWS[0], *["x"] * 150), on_error="skip")
    assert rows.report.skipped == 150
    assert "… and 140 more" in rows.report.summary()


def test_text_that_is_not_unicode_is_malformed(tmp_path, open_file):
    good = json.dumps(ROWS[0]).encode()
    (tmp_path / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + good + b"\n\xff\xfe\n" + good)
    rows = open_file(tmp_path / "rows.jsonl", on_error="skip")
    assert len(rows) == 2
    assert rows.report.reasons == ("rows.jsonl:2: not valid UTF-8 at byte 0",)


@pytest.mark.parametrize("line", ["[" * 100_000, "1" * 5000])
def test_json_that_only_the_parser_refuses_is_malformed(write_lines, open_file, line):
    rows = open_file(write_lines(ROWS[0], line), on_error="skip")
    assert rows.report.reasons[0].startswith("rows.jsonl:2: not valid JSON: ")
    rows = open_file(write_lines("[", line, "]", json.dumps(ROWS[0])), on_error="skip")
    assert (len(rows), rows.report.skipped) == (1, 2)


def test_an_error_inside_a_json_list_names_its_line(write_lines, open_file):
    path = write_lines("[", json.dumps(ROWS[0]), ",", "{bad}", "]", name="rows.json")
    rows = open_file(path, on_error="skip")
    assert len(rows) == 1
    assert rows[0]["origin"] == "rows.json:2"
    assert rows.report.reasons[0].startswith("rows.json:4: not valid JSON")


def test_an_unfinished_json_list_is_malformed(write_lines, open_file):
    rows = open_file(
        write_lines("[" + json.dumps(ROWS[0]) + ",", json.dumps(ROWS[1]), name="rows.json"),
        on_error="skip",
    )
    assert len(rows) == 2
    assert rows.report.reasons == (
        "rows.json:3: not valid JSON: the list has no end; is the end of the file missing?",
    )


def test_what_is_not_parquet_is_named(tmp_path, open_file):
    (tmp_path / "rows.parquet").write_text("no")
    with pytest.raises(EmptyDataError, match=r"rows\.parquet:1: not a Parquet file"):
        open_file(tmp_path / "rows.parquet")


def test_all_rows_of_a_broken_row_group_are_counted(tmp_path, open_file):
    table = pyarrow.table({"instruction": ["q" * 60] * 90, "output": ["a" * 60] * 90})
    path = tmp_path / "rows.parquet"
    options = {"row_group_size": 30, "use_dictionary": False, "write_page_checksum": True}
    pyarrow.parquet.write_table(table, path, **options)
    start = pyarrow.parquet.read_metadata(path).row_group(1).column(1).data_page_offset
    content = bytearray(path.read_bytes())
    content[start + 20 : start + 60] = bytes(40)
    path.write_bytes(content)
    rows = open_file(path, on_error="skip")
    assert (len(rows), rows.report.skipped) == (60, 30)
    assert rows.report.summary().startswith(
        "rows.parquet: 60 rows, 30 skipped\n  rows.parquet:31: "
    )
    assert "more" not in rows.report.summary()
    with pytest.raises(
        MalformedRowsError, match=r"30 of 90 rows .*\n  rows\.parquet:31: row group 2"
    ):
        open_file(path)


def test_an_empty_source_is_an_error(write_lines, open_file):
    with pytest.raises(EmptyDataError, match=r"rows\.jsonl is empty"):
        open_file(write_lines())
    with pytest.raises(EmptyDataError, match=r"all 2 are malformed:\n  bad\.jsonl:1"):
        open_file(write_lines("x", "y", name="bad.jsonl"), on_error="skip")


def test_no_file_and_no_such_kind_are_errors(tmp_path, open_file):
    with pytest.raises(DataNotFoundError, match="no file at"):
        open_file(tmp_path / "absent.jsonl")
    with pytest.raises(DataNotFoundError, match="it is a folder"):
        open_file(tmp_path)
    (tmp_path / "rows.xlsx").write_text("a,b")
    with pytest.raises(ValueError, match=r"cannot read .*rows\.xlsx.*valid files: \*\.jsonl"):
        open_file(tmp_path / "rows.xlsx")


def test_patterns_and_several_files(write_lines, tmp_path, open_file):
    for index, row in enumerate(ROWS):
        write_lines(row, name=f"part-{index}.jsonl")
    rows = open_file(tmp_path / "part-*.jsonl")
    assert [row["origin"] for row in rows] == [f"part-{i}.jsonl:1" for i in range(3)]
    paths = (str(tmp_path / "part-2.jsonl"), str(tmp_path / "part-0.jsonl"))
    two = open_rows(FileSource(path=paths), columns=Columns(), cache_dir=tmp_path / "cache")
    assert [row["instruction"] for row in two] == ["Third", "Add."]


def test_files_of_one_name_are_told_apart_by_folder(tmp_path, write_lines):
    (tmp_path / "a").mkdir()
    paths = (write_lines(ROWS[0]), write_lines(ROWS[1], name="a/rows.jsonl"))
    source = FileSource(path=tuple(map(str, paths)))
    rows = open_rows(source, columns=Columns(), cache_dir=tmp_path / "cache")
    assert [row["origin"] for row in rows] == [f"{path}:1" for path in paths]


def test_a_limit_takes_the_first_usable_rows(write_lines, open_file):
    path = write_lines(ROWS[0], "x", ROWS[1], "never read", ROWS[2])
    rows = open_file(path, max_rows=2, on_error="skip")
    assert [row["instruction"] for row in rows] == ["Add.", "Grüße"]
    assert rows.report.skipped == 1


def test_a_selection_reads_only_its_rows(write_lines, open_file):
    rows = open_file(write_lines(*ROWS))
    chosen = rows.select([2, 0])
    assert [row["instruction"] for row in chosen] == ["Third", "Add."]
    assert [row["instruction"] for row in rows[1:]] == ["Grüße", "Third"]
    assert len({rows.key, chosen.key, rows[1:].key}) == 3


def test_the_second_start_reads_no_row(write_lines, open_file, monkeypatch):
    path = write_lines(*ROWS)
    first = open_file(path)
    monkeypatch.setattr("adakd_jax.data.sources.read_rows", None)
    assert contents(open_file(path)) == contents(first)


def test_changed_content_columns_or_limit_are_read_again(write_lines, open_file):
    path = write_lines(*ROWS)
    keys = {open_file(path).key, open_file(path, max_rows=2).key}
    keys.add(open_file(path, columns=Columns(input="context")).key)
    write_lines(*ROWS[:2])
    again = open_file(path)
    assert len(again) == 2
    assert len(keys | {again.key}) == 4


def test_a_remote_cache_is_refused(write_lines, open_file):
    with pytest.raises(ValueError, match="'gs://bucket/cache' is remote"):
        open_file(write_lines(ROWS[0]), cache_dir="gs://bucket/cache")


def test_what_a_killed_process_left_is_not_picked_up(write_lines, open_file, tmp_path):
    path = write_lines(*ROWS)
    program = f"""
        import os
        from adakd_jax.config.data import Columns, FileSource
        from adakd_jax.data import builder, sources
        real = builder.write_rows
        def die(folder, rows):
            real(folder, rows)
            os._exit(9)
        builder.write_rows = die
        sources.open_rows(FileSource(path={str(path)!r}), columns=Columns(),
                          cache_dir={str(tmp_path / "cache")!r})
    """
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert died.returncode == 9
    left = list((tmp_path / "cache").iterdir())
    assert len(left) == 1 and left[0].name.startswith(".partial-")
    assert contents(open_file(path)) == contents(open_file(path))
    assert left[0].exists()  # it may belong to a process that still runs


def test_abandoned_work_is_removed_after_a_week(write_lines, open_file, tmp_path):
    old = tmp_path / "cache" / ".partial-rows-1"
    old.mkdir(parents=True)
    os.utime(old, (0, 0))
    open_file(write_lines(*ROWS))
    assert not old.exists()


def test_two_that_prepare_at_once_end_with_one_folder(tmp_path):
    written = []

    def write(folder):
        written.append(folder)
        while len(written) < 2:  # both are at work before either ends
            pass
        (folder / "content").write_text("same")

    with ThreadPoolExecutor(2) as pool:
        tasks = [pool.submit(cache.prepared_folder, tmp_path, "name", write) for _ in range(2)]
        folders = [task.result(timeout=30) for task in tasks]
    assert folders == [tmp_path / "name"] * 2
    assert (tmp_path / "name" / "content").read_text() == "same"
    assert list(tmp_path.iterdir()) == [tmp_path / "name"]


def test_the_digest_of_a_large_file_is_remembered(tmp_path, monkeypatch):
    path = cache.epath.Path(tmp_path / "rows.jsonl")
    path.write_text("content")
    monkeypatch.setattr(cache, "_MEMO_BYTES", 1)
    os.utime(path, (1000, 1000))
    digest = cache.file_digest(path, tmp_path)
    monkeypatch.setattr(cache, "_sha256", None)
    assert cache.file_digest(path, tmp_path) == digest
    os.utime(path, (2000, 2000))
    with pytest.raises(TypeError):  # another time: hashed again
        cache.file_digest(path, tmp_path)
