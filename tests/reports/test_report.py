"""The page as a file: what it says, that it is whole, that nothing of a run is taken for markup."""

import json
from html.parser import HTMLParser

import pytest

from adakd_jax.report import main
from adakd_jax.reports.charts import Chart, Line, svg, thinned, ticks
from adakd_jax.reports.curves import charts_of, running_mean
from adakd_jax.reports.gather import read_runs
from adakd_jax.reports.tokens import token_data
from tests.reports.conftest import EVIL, PIECES, STEPS


class Page(HTMLParser):
    """Tags with their attributes, and the text inside each kind of tag."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self._open = [], {}, []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "line", "path", "circle", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data):
        for tag in {*self._open}:
            self.text[tag] = self.text.get(tag, "") + data

    def count(self, tag):
        return sum(name == tag for name, _ in self.tags)


def page_of(*folders):
    main([str(folder) for folder in folders])
    return Page((folders[0] / "report.html").read_text())


def test_one_run_says_all_that_it_left(make_run, capsys):
    folder = make_run("mine")
    page = page_of(folder)
    assert capsys.readouterr().out == f"written: {folder / 'report.html'}\n"
    said = " ".join(page.text["body"].split())
    for text in (
        "TEACHER, distilled",
        "4.000 → 2.500",
        "40 of 40 steps in 0:01:20, 1 update skipped",
        "2026-01-02 03:04 UTC",
        "[2.400, 2.600]",
        "25.0 [20.0, 30.0]",
        "Why is the sky blue?",
        "It scatters.",
        "Scattering.",
        f"train {EVIL}",
    ):
        assert " ".join(text.split()) in said, text
    titles = " ".join(a["aria-label"] for _, a in page.tags if a.get("class") == "plot")
    for title in ("Loss", "KL to the teacher", "Kept tokens r", "LATF", "Throughput", "Memory"):
        assert f"{title} (" in titles


def test_the_page_fetches_nothing_and_runs_only_its_own_script(make_run):
    page = page_of(make_run("mine"))
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object"), (tag, attributes)
        assert not attributes.get("src"), (tag, attributes)
        assert (attributes.get("href") or "#").startswith("#"), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv"))
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy
    assert "url(" not in page.text["style"] and "@import" not in page.text["style"]


def test_what_models_write_is_text(make_run):
    page = page_of(make_run("mine"))
    assert page.count("script") == 2
    assert EVIL in page.text["p"] and EVIL in page.text["pre"]
    source = page.text["script"]
    assert "</script" not in source.lower() and "<img" not in source
    data, _ = json.JSONDecoder().raw_decode(source)
    assert EVIL in data[0]["words"]


def test_tokens_are_printed_once_and_their_numbers_by_step(make_run):
    folder = make_run("mine")
    page = page_of(folder)
    tokens = [a for tag, a in page.tags if tag == "span" and "data-i" in a]
    assert len(tokens) == 2 * 7 and [a["tabindex"] for a in tokens[:3]] == ["0", "-1", "-1"]
    assert tokens[3]["style"] == "--v:34"  # the last snapshot's difficulty, in percent
    assert "</b>" in page.text["span"] and "⏎" in page.text["span"] and "⋯" in page.text["span"]
    (data,) = token_data(read_runs([str(folder)]))
    assert data["steps"] == [0, 20, 40] and data["spread"] == (0.8, 1.3)
    first = data["examples"][0][0]
    assert first["score"][:2] == [0.0, 0.1] and len(PIECES) > len(first["score"])
    words = [data["words"][number] for number in first["teacher"][0][::2]]
    assert words == [" sky", EVIL, "\n", " is", "x"] and first["teacher"][0][1] == 0.5


def test_runs_are_compared(make_run):
    one, other = make_run("a/run"), make_run("b/run", kind="all", after=2.0, snapshots=())
    page = page_of(one, other)
    said = " ".join(page.text["body"].split())
    assert "2 runs compared" in said and "a/run" in said and "b/run" in said
    assert "distill.focus.kind latf all" in said and "run_dir" not in page.text["table"]
    best = page.tags.index(("td", {"class": "best"}))
    assert page.tags[best][0] == "td" and "2.000" in page.text["td"]
    labels = [a["aria-label"] for tag, a in page.tags if a.get("class") == "plot"]
    assert all("a/run" in label and "b/run" in label for label in labels)


def test_a_run_that_has_just_begun_has_a_page(make_run):
    folder = make_run("new", snapshots=())
    for file in ("metrics.jsonl", "evaluation/after.json", "evaluation/teacher.json"):
        (folder / file).unlink()
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "kind": "train", "loss": 3.0}))
    assert "no step yet" in page_of(folder).text["body"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "none", "no such folder; valid: the run_dir of a training"),
        (lambda path: path, "valid: the run folders inside it"),
        (lambda path: path / "mine" / "tokens", "it has no config.yaml"),
    ],
)
def test_what_is_no_run_is_named_with_what_would_be(make_run, tmp_path, capsys, make, message):
    make_run("mine")
    with pytest.raises(SystemExit) as ended:
        main([str(make(tmp_path))])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_a_file_that_is_broken_is_named(make_run, capsys):
    folder = make_run("mine")
    (folder / "tokens" / "step_20.json").write_text("{")
    with pytest.raises(SystemExit):
        main([str(folder)])
    assert "step_20.json" in capsys.readouterr().err


def test_output_goes_where_it_should(make_run, tmp_path, capsys):
    folder = make_run("mine")
    main([str(folder), "--output", str(tmp_path / "pages" / "x.html")])
    assert (tmp_path / "pages" / "x.html").exists() and not (folder / "report.html").exists()
    for arguments, message in (
        ([str(folder), "--output", str(tmp_path)], "is a folder; valid: the name of a file"),
        ([str(folder), str(folder)], "is given twice"),
        ([str(folder), f"{folder}/"], "is given twice"),
        ([], "runs"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


def test_lines_keep_their_ends_and_means():
    points = [(step, float(step % 7)) for step in range(1, 1001)]
    few = thinned(points)
    assert len(few) == 200 and few[-1][0] == 1000
    mean = sum(value for _, value in points) / len(points)
    assert sum(value for _, value in few) / len(few) == pytest.approx(mean)
    assert running_mean([(1, 1.0), (2, 3.0), (3, 5.0)], 2) == [(1, 1.0), (2, 2.0), (3, 4.0)]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (0, 9.3, [0, 2.5, 5, 7.5]), (-3, 2, [-2, 0, 2])],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high, 4) == pytest.approx(expected)


def test_a_chart_draws_what_it_is_given(make_run):
    flat = svg(Chart("T", "u", [Line("<l>", [(1, 2.0)]), Line("m", [(1, 2.0), (5, 2.0)])]))
    assert "&lt;l&gt;" in flat and "<l>" not in flat and flat.count("<circle") == 1
    assert "nan" not in flat and "inf" not in flat
    charts = {chart.title: chart for chart in charts_of(read_runs([str(make_run("mine"))]))}
    raw, smoothed = charts["Loss"].lines
    assert raw.faint and len(raw.points) == STEPS - 1  # a step without a finite loss is left out
    assert smoothed.points[-1][1] == pytest.approx((raw.points[-1][1] + raw.points[-2][1]) / 2)
    held_out = next(line for line in charts["NLL"].lines if line.dots)
    assert held_out.points == [(0, 4.0), (20, 3.0), (STEPS, 2.5)]
    assert [len(line.bands) for line in charts["Temperature τ"].lines] == [2]
    norms = charts["Gradient norm of a token"].lines
    assert {line.label for line in norms} == {"hardest", "easiest"}
    reference = charts["LATF"].lines[1]
    assert reference.points[0][0] == 5  # before, there is none


def test_a_run_of_a_study_shows_its_result(make_run):
    folder = make_run("seed0")
    measured = json.loads((folder / "evaluation" / "after.json").read_text())
    for file in (folder / "evaluation").iterdir():
        file.unlink()
    answers = measured.pop("answers")
    del measured["intervals"]
    (folder / "result.json").write_text(json.dumps({"metrics": measured, "answers": answers}))
    said = " ".join(page_of(folder).text["body"].split())
    assert (
        "NLL 2.500" in said
        and "→ 2.500" not in said
        and "25.0 [20.0, 30.0]" in said
        and "It scatters." in said
    )
