import pytest

from adakd_jax.data import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on one second each time it is read."""
    ticks = iter(range(10_000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(ticks))


def test_quick_work_shows_nothing(capsys):
    assert list(progress.track([1, 2, 3], "working")) == [1, 2, 3]
    assert capsys.readouterr() == ("", "")


def test_slow_work_shows_how_far_it_is(clock, capsys):
    assert list(progress.track(range(100), "tokenizing", 100)) == list(range(100))
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert lines[0] == "tokenizing: 3/100"
    assert 2 <= len(lines) <= 5
    assert shown.out == ""


def test_a_terminal_gets_a_bar(clock, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(progress.track(range(50), "reading")) == list(range(50))
    assert "reading" in capsys.readouterr().err
