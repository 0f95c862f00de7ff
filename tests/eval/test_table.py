import io

from adakd_jax.console import Console
from adakd_jax.eval.table import answers_table, card_metrics, metrics_table
from adakd_jax.studies.tables import row

BEFORE = {"tokens": 1200, "nll": 5.87654, "forward_kl": 2.0, "top1_agreement": 0.25}
ROUGE = {"rouge_l": 0.3123, "rouge_l_low": 0.29, "rouge_l_high": 0.333, "answers": [{}, {}]}
AFTER = {**BEFORE, "nll": 3.5, **ROUGE}


def printed(table):
    console = Console(width=100, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_metrics_stand_side_by_side():
    lines = printed(
        metrics_table({"before": BEFORE, "after [x]": AFTER}, title="held out")
    ).splitlines()
    cells = {line.split("│")[1].strip(): line for line in lines if line.count("│") == 4}
    assert "5.8765" in cells["NLL"] and "3.5000" in cells["NLL"]
    assert "25.0%" in cells["top-1 agreement"]
    assert "–" in cells["ROUGE-L"] and "31.2 [29.0, 33.3]" in cells["ROUGE-L"]
    assert "reverse KL" not in cells
    text = "\n".join(lines)
    assert "after [x]" in text and "held out" in text
    assert "1,200 response tokens" in text and "of 2 answers" in text


def test_a_card_gets_the_same_numbers():
    metrics = card_metrics({"before": BEFORE, "after": AFTER})
    assert metrics.columns == ("before", "after")
    assert metrics.rows["NLL"] == [5.87654, 3.5]
    assert metrics.rows["ROUGE-L"] == [None, 0.3123]


def test_answers_are_shown_as_they_are_and_not_endless():
    text = printed(answers_table("What [b]?", {"teacher": "[red]plain[/]", "student": "x" * 2000}))
    assert "What [b]?" in text and "[red]plain[/]" in text
    assert text.count("x") == 599 and "…" in text
    assert "(nothing)" in printed(answers_table("What?", {"student": " \n"}))


def test_text_in_a_cell_of_markdown_is_no_part_of_the_table():
    assert row(["a|b", "two\nlines", "c"]) == "| a\\|b | two lines | c |"
