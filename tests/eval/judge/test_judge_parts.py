"""Pairs, verdicts and outcomes of the judge, without a server."""

import json
import threading

import pytest

from adakd_jax.eval.judge.asking import ask_all
from adakd_jax.eval.judge.client import Reply
from adakd_jax.eval.judge.outcome import Verdicts, judged
from adakd_jax.eval.judge.pairs import Pair, read_pairs
from adakd_jax.eval.judge.question import JudgeSettings, Question, questions_of, read_verdict
from adakd_jax.eval.judge.verdict_file import VerdictFile


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("Verdict: 1", "1"),
        ("reasons\n\n  **verdict: Tie**  \n", "tie"),
        ("Verdict: 1\nNo, wait.\nVerdict: 2", "2"),
        ("Verdict: 1 or 2", None),
        ("My verdict: 1", None),
        ("", None),
    ],
)
def test_only_a_line_that_is_a_verdict_counts(reply, verdict):
    assert read_verdict(reply) == verdict


@pytest.mark.parametrize("straight", ["1", "2", "tie", None])
@pytest.mark.parametrize("swapped", ["1", "2", "tie", None])
def test_only_two_orders_that_agree_decide(straight, swapped):
    expected = {("1", "2"): "win", ("2", "1"): "loss"}.get((straight, swapped), "tie")
    assert Verdicts(straight, swapped).outcome == expected


def test_a_judge_of_first_places_decides_nothing():
    found = judged([Verdicts("1", "1")] * 8)
    assert (found.ties, found.disagreed, found.first_place) == (8, 8, 1.0)
    assert found.win_rate == found.low == found.high == 0.5


def test_orders_swap_the_answers_and_settings_change_the_key():
    settings = JudgeSettings(
        "http://h/v1", "m", temperature=None, limit_name="max_completion_tokens"
    )
    straight, swapped = questions_of(3, Pair("what?", "ours", "theirs"), settings)
    places = [each.request["messages"][-1]["content"].index("ours") for each in (straight, swapped)]
    assert places[0] < places[1] and (straight.pair, swapped.swapped) == (3, True)
    assert straight.request["max_completion_tokens"] == 512
    assert "temperature" not in straight.request and "max_tokens" not in straight.request
    again = questions_of(5, Pair("what?", "theirs", "ours"), settings)
    assert again[1].key == straight.key != swapped.key
    other = questions_of(3, Pair("what?", "ours", "theirs"), settings._replace(model="n"))
    assert other[0].key != straight.key


def rows(file, records):
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(file)


def test_repeated_requests_and_conversations_are_matched(tmp_path):
    turns = [{"role": "user", "content": "Hi"}]
    one = [
        {"instruction": "q", "input": "x", "output": "a1", "number": 7},
        {"instruction": "q", "input": "x", "output": "a2"},
        {"messages": [*turns, {"role": "assistant", "content": "hello"}]},
        {"instruction": "only here", "output": "z"},
    ]
    other = [
        {"messages": [*turns, {"role": "assistant", "content": "hey"}]},
        {"instruction": "q", "input": "x", "output": ""},
        {"instruction": "q", "input": "x", "output": "b2"},
    ]
    found = read_pairs(rows(tmp_path / "a.jsonl", one), rows(tmp_path / "b.jsonl", other))
    assert found.pairs == [
        Pair("q\n\nx", "a1", ""),
        Pair("q\n\nx", "a2", "b2"),
        Pair("user: Hi", "hello", "hey"),
    ]
    assert found.unmatched == 1


@pytest.mark.parametrize(
    ("record", "message"),
    [({"instruction": "other"}, "no request in common"), ({"text": "t"}, "b.jsonl:1: plain text")],
)
def test_files_that_do_not_belong_together_are_refused(tmp_path, record, message):
    one = rows(tmp_path / "a.jsonl", [{"instruction": "q", "output": "a"}])
    with pytest.raises(ValueError, match=message):
        read_pairs(one, rows(tmp_path / "b.jsonl", [record]))


def test_a_file_of_something_else_is_not_taken_for_replies(tmp_path):
    file = tmp_path / "replies.jsonl"
    file.write_text('{"key": "k", "text": "t", "prompt_tokens": 1}\n')
    with pytest.raises(ValueError, match=r"replies\.jsonl:1: not a reply"):
        VerdictFile(file)


def test_replies_that_are_under_way_at_an_interruption_are_kept():
    questions = [Question(n, False, {"n": n}, str(n)) for n in range(50)]
    both_asked, kept, asked = threading.Barrier(2), [], []

    def ask(request):
        asked.append(request["n"])
        if request["n"] < 2:
            both_asked.wait(timeout=5)
        else:
            interrupted.wait(timeout=5)
        return Reply(str(request["n"]), 1, 1)

    interrupted = threading.Event()

    def keep(question, reply):
        if not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt
        assert reply.text == question.key
        kept.append(question.pair)

    with pytest.raises(KeyboardInterrupt):
        ask_all(questions, ask, keep, concurrency=2)
    assert sorted(kept) == sorted(asked) and {0, 1} <= set(kept) and len(asked) < 50
