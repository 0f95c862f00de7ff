"""Files as people have them: whatever a file holds is a row or an error, and nothing is lost."""

import gzip
import io
import json

import pyarrow
import pyarrow.parquet
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from adakd_jax.data.read_json import read_json
from adakd_jax.data.readers import read_rows, suffix

A, B, C = ({"instruction": f"say {n}", "output": "ä\n{[," * n} for n in (1, 2, 3))


@pytest.fixture
def read(tmp_path):
    def read_file(name, content, columns=()):
        path = epath.Path(tmp_path / name)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return list(read_rows(path, name, columns))

    return read_file


def good(rows):
    return [row.content for row in rows if row.error is None]


def errors(rows):
    return [f"{row.origin}: {row.error}" for row in rows if row.error is not None]


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def pretty(*rows):
    return "".join(json.dumps(row, indent=2) + "\n" for row in rows)


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "ROWS.JSONL"])
@pytest.mark.parametrize(
    "content",
    [
        lines(A, B, C),
        pretty(A, B, C),
        json.dumps([A, B, C]),
        json.dumps([A, B, C], indent=2),
        json.dumps([A, B]) + "\n" + json.dumps(C),
        json.dumps([A]) + json.dumps([B, C]),
        json.dumps([A, B], indent=2) + pretty(C),
        "\n\n[" + ",\n".join(map(json.dumps, (A, B, C))) + ",]\n",
        "\ufeff" + pretty(A, B, C),
        "\ufeff" + lines(A, B, C).replace("\n", "\r\n"),
        "{\n" + pretty(A, B, C)[2:],
        json.dumps(A, indent=2)[:3].replace("\n", "") + json.dumps(A, indent=2)[3:] + pretty(B, C),
    ],
)
def test_every_arrangement_of_json_gives_all_its_rows(read, name, content):
    rows = read(name, content)
    assert good(rows) == [A, B, C] and not errors(rows)


@given(st.data())
def test_a_stream_of_values_loses_none(data):
    row = st.dictionaries(st.text(), st.lists(st.integers(0, 9)), min_size=1)
    groups = data.draw(st.lists(st.lists(row, min_size=1), min_size=1))
    spaces = st.sampled_from(["", " ", "\n", "\r\n\t"])
    text = data.draw(spaces)
    for group in groups:
        begins = not text.strip()
        value = group[0] if len(group) == 1 else group
        # What begins with a whole object on a line goes on line by line.
        indent = 1 if begins and isinstance(value, dict) else data.draw(st.sampled_from([None, 1]))
        text += json.dumps(value, indent=indent) + data.draw(spaces)

    found = list(read_json(lambda: io.BytesIO(text.encode()), "rows.json"))
    assert [row.content for row in found] == [row for group in groups for row in group]
    assert not errors(found)


def test_rows_over_several_lines_are_known_by_their_first(read):
    rows = read("rows.jsonl", pretty(A, B) + json.dumps([C], indent=1))
    assert [row.origin for row in rows] == ["rows.jsonl:1", "rows.jsonl:5", "rows.jsonl:10"]


def test_an_error_in_pretty_printed_rows_is_one_sentence(read):
    broken = pretty(B).replace('",\n', '"\n')
    rows = read("rows.jsonl", pretty(A) + broken + pretty(C))
    assert good(rows) == [A, C]
    assert errors(rows) == ["rows.jsonl:7: not valid JSON: Expecting ',' delimiter at column 3"]
    rows = read("rows.jsonl", broken)
    assert len(rows) == 1 and "the rest of the file is not read" in rows[0].error


def test_a_damaged_first_line_costs_itself_only(read):
    damaged = '{"instruction": "a", "outp'
    for first in (damaged, '{"instruction": 1,', "[INFO] writing", "\x00"):
        rows = read("rows.jsonl", first + "\n" + lines(A, B))
        assert good(rows) == [A, B] and len(errors(rows)) == 1


def test_what_follows_a_value_is_never_dropped(read):
    assert errors(read("rows.jsonl", lines(A) + json.dumps(B) + " " + json.dumps(C))) == [
        f"rows.jsonl:2: not valid JSON: Extra data at column {len(json.dumps(B)) + 1}"
    ]
    rows = read("rows.json", json.dumps([A]) + " trailing words")
    assert good(rows) == [A] and "Expecting value" in errors(rows)[0]
    rows = read("rows.json", json.dumps([A, B])[:-1])
    assert good(rows) == [A, B] and "the list has no end" in errors(rows)[0]


def test_a_key_that_stands_twice_is_an_error(read):
    twice = '{"instruction": "a", "output": "b", "output": "c"}'
    inside = '{"messages": [{"role": "user", "content": "a", "content": "b"}]}'
    for name, content in (
        ("rows.jsonl", lines(A) + twice + "\n" + inside + "\n" + lines(C)),
        ("rows.json", f"[{json.dumps(A)},\n{twice},\n{inside},\n{json.dumps(C)}]"),
    ):
        rows = read(name, content)
        assert good(rows) == [A, C]
        assert errors(rows) == [
            f"{name}:2: key 'output' stands twice in one object",
            f"{name}:3: key 'content' stands twice in one object",
        ]


def test_text_that_is_not_utf8_is_named_by_line(read):
    whole = json.dumps([A, B], indent=1, ensure_ascii=False)
    rows = read("rows.json", whole.encode("latin-1"))
    assert errors(rows)[0].startswith("rows.json:4: not valid UTF-8")
    rows = read("rows.csv", "instruction,output\na,b\nc,ä\n".encode("latin-1"))
    assert errors(rows)[0].startswith("rows.csv:3: not valid UTF-8")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv(read, delimiter):
    content = '\ufeffinstruction,output\r\n"a, ""b""\nc",d\r\n\r\n,e\r\nf,\r\n'.replace(
        ",", delimiter
    )
    rows = read("rows.tsv" if delimiter == "\t" else "rows.csv", content)
    assert good(rows) == [
        {"instruction": f'a{delimiter} "b"\nc', "output": "d"},
        {"instruction": "", "output": "e"},
        {"instruction": "f", "output": ""},
    ]
    assert [row.origin.partition(":")[2] for row in rows] == ["2", "5", "6"]


def test_csv_that_does_not_fit_its_header_is_an_error(read):
    rows = read("rows.csv", "instruction,output\na,b,c\nd\ne,f\n")
    assert good(rows) == [{"instruction": "e", "output": "f"}]
    assert errors(rows)[0] == "rows.csv:2: 3 values, but the first line names 2 columns"
    rows = read("rows.csv", 'instruction,output\na,b\nc,"d\ne,f\n')
    assert good(rows) == [{"instruction": "a", "output": "b"}]
    assert errors(rows) == ["rows.csv:3: not valid CSV: unexpected end of data"]
    assert errors(read("rows.csv", "a,a\n1,2\n")) == ["rows.csv:1: two columns are called 'a'"]
    long = "x" * 300_000
    assert good(read("rows.csv", f"output\n{long}\n")) == [{"output": long}]


def packed(data, end):
    if end == ".gz":
        return gzip.compress(data)
    return pyarrow.Codec("zstd").compress(data, asbytes=True)


@pytest.mark.parametrize("end", [".gz", ".zst"])
def test_compressed_text(read, end):
    table = "".join(f'{row["instruction"]},"{row["output"]}"\n' for row in (A, B, C))
    for name, content in (
        ("rows.jsonl", lines(A, B, C)),
        ("rows.json", json.dumps([A, B, C])),
        ("rows.csv", "instruction,output\n" + table),
    ):
        data = content.encode()
        assert good(read(name + end, packed(data, end))) == [A, B, C]
    # Two files that were put one behind the other are one.
    two = packed(lines(A).encode(), end) + packed(lines(B).encode(), end)
    assert good(read("rows.jsonl" + end, two)) == [A, B]


@pytest.mark.parametrize("end", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["cut", "changed", "plain"])
def test_a_broken_compressed_file_is_an_error(read, end, damage):
    data = packed(lines(*({"instruction": str(n**7)} for n in range(5000))).encode(), end)
    middle = len(data) // 2
    broken = {
        "cut": data[:middle],
        "changed": data[:middle] + bytes(99) + data[middle + 99 :],
        "plain": lines(A, B).encode(),
    }[damage]
    rows = read("rows.jsonl" + end, broken)
    assert len(good(rows)) < 5000
    assert "cannot be decompressed" in errors(rows)[-1]
    assert errors(rows)[-1].startswith(f"rows.jsonl{end}:")


def test_a_broken_page_of_parquet_costs_its_row_group(tmp_path):
    table = pyarrow.table({"instruction": [f"{n} " + "x" * 50 for n in range(300)]})
    path = epath.Path(tmp_path / "rows.parquet")
    pyarrow.parquet.write_table(
        table, path, row_group_size=100, use_dictionary=False, write_page_checksum=True
    )
    meta = pyarrow.parquet.read_metadata(path)
    start = meta.row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[start + 200 : start + 300] = bytes(100)
    path.write_bytes(content)
    rows = list(read_rows(path, "rows.parquet", ("instruction",)))
    assert [row["instruction"].split()[0] for row in good(rows)] == [
        str(n) for n in (*range(100), *range(200, 300))
    ]
    (told,) = errors(rows)
    assert told.startswith(
        "rows.parquet:101: row group 2 of 3 is broken, its rows 101 to 200 are not read: "
    )


def test_no_damage_to_parquet_ends_in_an_exception_or_in_other_rows(tmp_path):
    written = [{"instruction": str(n) * 9} for n in range(99)]
    path = epath.Path(tmp_path / "rows.parquet")
    options = {"use_dictionary": False, "write_page_checksum": True, "compression": "none"}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(written), path, **options)
    column = pyarrow.parquet.read_metadata(path).row_group(0).column(0)
    end = column.data_page_offset + column.total_compressed_size
    whole = path.read_bytes()
    for place in range(4, len(whole) - 8, 41):
        changed = bytes(byte ^ 0x5A for byte in whole[place : place + 8])
        path.write_bytes(whole[:place] + changed + whole[place + 8 :])
        rows = list(read_rows(path, "rows.parquet", ()))
        if place < end:
            assert errors(rows) or good(rows) == written  # statistics are no part of a row
            assert all(row in written for row in good(rows))
        assert all(each.startswith("rows.parquet:") for each in errors(rows))
    path.write_bytes(whole[: len(whole) // 2])
    (told,) = errors(list(read_rows(path, "rows.parquet", ())))
    assert told.startswith("rows.parquet:1: not a Parquet file: ")


def test_a_file_that_cannot_be_reached_is_no_malformed_row(tmp_path):
    for name in ("rows.jsonl", "rows.parquet", "rows.jsonl.gz"):
        with pytest.raises(FileNotFoundError):
            list(read_rows(epath.Path(tmp_path / name), name, ()))


def test_how_a_file_is_read_is_told_by_the_end_of_its_name():
    assert suffix("a.b.JSONL.gz") == ".jsonl.gz" and suffix("a.json.zst") == ".json.zst"
    assert suffix("a.parquet") == ".parquet" and suffix("a.gz") is None and suffix("json") is None
