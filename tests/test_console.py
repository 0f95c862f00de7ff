"""Text that is printed comes out as it is: nothing of a user's is markup of the terminal."""

import ast
import io
from pathlib import Path

import pytest
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

import adakd_jax
from adakd_jax.console import Console, progress_text

AWKWARD = "[/INST] [bold]x[/] :smile: 'quoted' http://a.b 12 [link=file:///x]y"
PATH = "runs [v1]/" + "long-folder-name/" * 20 + "rows.jsonl"
# What rich offers for layout; whatever writes or reads markup has one home, adakd_jax.console.
LAYOUT = {
    "rich.table": {"Table"},
    "rich.text": {"Text"},
    "rich.progress": {
        *("BarColumn", "MofNCompleteColumn", "Progress", "TimeElapsedColumn"),
        "TimeRemainingColumn",
    },
}


def console(**options):
    return Console(file=io.StringIO(), **options)


def printed(*objects, **options):
    to = console()
    to.print(*objects, **options)
    return to.file.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_text_is_no_markup_and_lines_stay_whole(terminal):
    to = console(force_terminal=terminal, color_system="truecolor" if terminal else None)
    to.print(AWKWARD)
    to.print(f"exported {PATH}")
    to.print(Text("warning:", "yellow"), f"{AWKWARD} {PATH}")
    plain = to.file.getvalue().replace("\x1b[33m", "").replace("\x1b[0m", "")
    assert plain.splitlines() == [AWKWARD, f"exported {PATH}", f"warning: {AWKWARD} {PATH}"]


def test_markup_cannot_be_asked_for():
    assert printed(AWKWARD, markup=True, emoji=True, highlight=True) == AWKWARD + "\n"


def test_tables_rules_states_and_bars_take_text_as_it_is():
    table = Table(title=AWKWARD, caption=AWKWARD)
    table.add_column(AWKWARD, footer=AWKWARD)
    table.add_row(AWKWARD)
    assert printed(table).count(AWKWARD) == 4
    to = console()
    to.rule(AWKWARD)
    assert AWKWARD in to.file.getvalue()
    to = console(force_terminal=True, color_system=None)
    with to.status(AWKWARD):
        pass
    assert AWKWARD in to.file.getvalue()
    to = console(force_terminal=True, color_system=None, width=200)
    with Progress(progress_text("{task.description} {task.fields[more]}"), console=to) as bar:
        bar.add_task(AWKWARD, more="[/]")
    assert f"{AWKWARD} [/]" in to.file.getvalue()


def test_control_characters_of_a_text_do_not_reach_the_terminal():
    table = Table()
    table.add_column("\x1b[2J")
    table.add_row("red\x1b[31m\r\x07\x9b one\ttwo\nthree")
    for text in (printed(table), printed("red\x1b[31m\x9b")):
        assert not set(text) & set("\x1b\r\x07\x9b")
        assert "\\x1b[31m" in text
    assert printed("caf\udce9").encode() == b"caf\\udce9\n"


def test_a_table_is_not_cut_to_eighty_columns_in_a_log(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console().width == 120
    assert console(width=70).width == 70


def test_the_package_prints_through_this_console_only():
    root = Path(adakd_jax.__file__).parent
    found = []
    for file in sorted(root.rglob("*.py")):
        if file.name == "console.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found += [(file.name, a.name) for a in node.names if a.name.startswith("rich")]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich"):
                allowed = LAYOUT.get(str(node.module), set())
                found += [(file.name, a.name) for a in node.names if a.name not in allowed]
            elif isinstance(node, ast.Attribute) and node.attr == "from_markup":
                found.append((file.name, node.attr))
    assert not found
