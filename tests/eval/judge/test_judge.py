"""The judge command against a server that stands in for an OpenAI-compatible one."""

import json
import sys

import pytest

from adakd_jax.judge import main as judge
from tests.eval.judge.stand_in import StandIn

KEY = "sk-Very-Secret-0123456789"
# Request, first model's answer, second model's, outcome of the first.
CASES = [
    ("plain", "a good one", "a bad one", "win"),
    ("plain two", "bad", "good", "loss"),
    ("both", "good", "also good", "tie"),
    ("biased", "good", "bad", "tie"),
    ("mumble", "good", "bad", "tie"),
    ("same", "an answer", "an answer", "tie"),
    ("busy", "bad", "good", "loss"),
    ("broken", "good", "bad", "win"),
    ("slow", "good", "bad", "win"),
]


@pytest.fixture(scope="module")
def server():
    server = StandIn()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)


def write(file, answers):
    rows = [{"instruction": asked, "input": "", "output": text} for asked, text in answers]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.fixture
def run(server, tmp_path):
    """Runs the command on cases; gives the exit code."""

    def run(cases, *flags, yes=True):
        # The second file in another order: answers are matched by what was asked.
        files = [
            write(tmp_path / "a.jsonl", [(case[0], case[1]) for case in cases]),
            write(tmp_path / "b.jsonl", [(case[0], case[2]) for case in reversed(cases)]),
        ]
        common = ["--base_url", server.url, "--model", "m", "--key_variable", "JUDGE_KEY"]
        common += ["--output", str(tmp_path / "out"), "--timeout", "0.4", "--concurrency", "3"]
        try:
            judge([*files, *common, *flags, *(["--yes"] if yes else [])])
        except SystemExit as stopped:
            return stopped.code
        return 0

    server.bodies.clear()
    server.keys.clear()
    server.tries.clear()
    server.refuses = False
    return run


def test_every_pair_is_judged_in_both_orders_through_errors(run, server, tmp_path, capsys):
    assert run(CASES) == 0
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert [pair["outcome"] for pair in result["pairs"]] == [case[3] for case in CASES]
    found = result["result"]
    assert (found["wins"], found["ties"], found["losses"]) == (3, 4, 2)
    assert (found["identical"], found["disagreed"], found["unparsable"]) == (1, 1, 1)
    assert found["win_rate"] == pytest.approx(5 / 9)
    assert found["low"] < found["win_rate"] < found["high"]
    assert found["first_place"] == pytest.approx(7 / 12)  # both orders of 'biased', else half
    assert result["tokens"] == {"in": 16 * 7, "out": 16 * 3}
    asked = [body["messages"][-1]["content"] for body in server.bodies]
    assert len(set(asked)) == 16 and not any("an answer" in text for text in asked)
    assert {server.tries[text] for text in asked if "busy" in text} == {3}
    assert server.bodies[0]["temperature"] == 0.0 and server.bodies[0]["max_tokens"] == 512
    assert "3 wins, 4 ties, 2 losses" in capsys.readouterr().out


def test_the_key_is_sent_and_appears_nowhere(run, server, tmp_path, capfd):
    assert run(CASES[:3]) == 0
    assert set(server.keys) == {f"Bearer {KEY}"}
    server.refuses = True
    assert run(CASES) == 2  # refused at once, with the key in what the server says
    texts = [file.read_text() for file in tmp_path.rglob("*") if file.is_file()]
    shown = capfd.readouterr()
    assert "[key] is no key" in shown.err and "You sent Bearer [key]" in "".join(texts)
    for text in (*texts, shown.out, shown.err):
        assert KEY not in text and "Authorization" not in text


def test_what_was_asked_is_not_asked_again(run, server, tmp_path):
    assert run(CASES[:2]) == 0
    replies = tmp_path / "out/replies.jsonl"
    whole = replies.read_text()
    replies.write_text(whole[:-20])  # an interruption inside the last line
    server.bodies.clear()
    assert run(CASES[:3]) == 0
    assert len(server.bodies) == 3
    assert run(CASES[:3]) == 0 and len(server.bodies) == 3
    assert run(CASES[:3], "--temperature", "1") == 0 and len(server.bodies) == 9


def test_what_has_no_reply_is_no_tie_but_left_to_the_next_start(run, server, tmp_path, capsys):
    cases = [("garbage", "good", "bad", None), CASES[0]]
    assert run(cases, "--retries", "0") == 1
    shown = capsys.readouterr()
    assert "2 of 4 questions have no reply" in shown.err and "left out: 1 pairs" in shown.out
    content = json.loads((tmp_path / "out/result.json").read_text())
    assert [pair["outcome"] for pair in content["pairs"]] == [None, "win"]
    assert (content["result"]["without_reply"], content["result"]["ties"]) == (1, 0)
    assert len(server.bodies) == 4
    run(cases, "--retries", "0")
    assert len(server.bodies) == 6  # those without reply once more


def test_a_server_that_is_down_is_not_asked_on(run, server, tmp_path, capsys):
    cases = [(f"garbage {number}", "good", "bad", None) for number in range(20)]
    assert run(cases, "--retries", "0", "--concurrency", "1") == 2
    assert 5 <= len(server.bodies) < 10
    assert "there is no result" in capsys.readouterr().err
    assert not (tmp_path / "out/result.json").exists()


def test_a_reply_cut_before_its_verdict_is_a_tie_and_said(run, tmp_path, capsys):
    assert run([("endless", "good", "bad", None)], "--max_tokens", "8") == 0
    assert "2 replies were cut at --max_tokens 8" in capsys.readouterr().out
    result = json.loads((tmp_path / "out/result.json").read_text())["result"]
    assert (result["ties"], result["unparsable"]) == (1, 1)


@pytest.mark.parametrize(("given", "code"), [(f"{KEY}\n", 0), (f"{KEY}\u2026", 2), (KEY * 2, 0)])
def test_a_key_is_stripped_or_refused_and_never_shown(run, server, given, code, monkeypatch, capfd):
    monkeypatch.setenv("JUDGE_KEY", given)
    assert run(CASES[:1]) == code
    assert set(server.keys) == ({f"Bearer {given.strip()}"} if code == 0 else set())
    assert KEY not in "".join(capfd.readouterr())


def test_the_cost_is_shown_first_and_nothing_asked_without_consent(
    run, server, capsys, monkeypatch
):
    prices = ("--price_input", "1000000", "--price_output", "0", "--max_tokens", "10")
    assert run(CASES[:6], "--dry_run", *prices, yes=False) == 0
    shown = capsys.readouterr().out
    tokens = int(shown.split("about ")[1].split(" ")[0].replace(",", ""))
    assert "10 calls" in shown and f"cost at most about {tokens}.00" in shown and tokens > 1000
    assert "at most 100 tokens out" in shown
    assert run(CASES, yes=False) == 2  # nobody to ask
    assert "--yes" in capsys.readouterr().err
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: "n")
    assert run(CASES, yes=False) == 0 and server.bodies == []
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert run(CASES[:1], yes=False) == 0 and len(server.bodies) == 2


@pytest.mark.parametrize(
    ("url", "message"),
    [("http://me:secret@host/v1", "no user, password"), ("localhost:8000", "is no address")],
)
def test_addresses_that_would_leak_or_lead_nowhere_are_refused(run, url, message, capsys):
    assert run(CASES, "--base_url", url) == 2
    assert message in capsys.readouterr().err


def test_without_the_package_the_extra_is_named(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openai", None)
    assert run(CASES) == 2
    assert "pip install 'adakd_jax[judge]'" in capsys.readouterr().err
