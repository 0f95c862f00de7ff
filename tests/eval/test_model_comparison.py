"""Two evaluations compared metric by metric."""

import numpy as np
import pytest

from adakd_jax.eval.comparison import compare
from adakd_jax.eval.measured import Measured

TOKENS = [4.0, 9.0, 2.0, 7.0]


def measured(nll, rouge, **changes):
    """Two seeds that scatter around `rouge`."""
    values = {
        "title": "DollyEval",
        "asked": "rows",
        "metrics": {
            "nll": float(np.dot(nll, TOKENS) / sum(TOKENS)),
            "rouge_l": float(np.mean(rouge)),
        },
        "documents": {"tokens": TOKENS, "nll": [n * t for n, t in zip(nll, TOKENS, strict=True)]},
        "numbers": [0, 1, 2, 3],
        "scores": {"rouge_l": {"10": [r - 0.05 for r in rouge], "20": [r + 0.05 for r in rouge]}},
        "reliability": [],
        "answers": [],
    }
    return Measured(**(values | changes))


ONE = measured([1.0, 2.0, 3.0, 1.5], [0.2, 0.4, 0.3, 0.5])
OTHER = measured([1.1, 2.1, 3.1, 1.6], [0.2, 0.2, 0.2, 0.2])


def test_gaps_are_the_first_minus_the_second_over_tokens_and_over_seeds():
    nll, rouge = compare({"dolly": ONE}, {"dolly": OTHER}, resamples=200)
    assert (nll.title, nll.metric, rouge.metric) == ("DollyEval", "nll", "rouge_l")
    assert [nll.gap.value, nll.gap.low, nll.gap.high] == pytest.approx([-0.1] * 3)
    assert rouge.gap.value == pytest.approx(0.15) == pytest.approx(rouge.first - rouge.second)
    assert rouge.gap.low >= 0.0 and rouge.gap.p > 0.0


def test_other_tokenizers_compare_by_their_answers_only():
    other = measured([1.0] * 4, [0.2] * 4, documents={"tokens": [5.0] * 4, "nll": [1.0] * 4})
    assert [row.metric for row in compare({"a": ONE}, {"a": other})] == ["rouge_l"]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"vicuna": ONE}, "no set in common: dolly and vicuna"),
        ({"dolly": measured([1.0] * 4, [0.2] * 4, asked="others")}, "not the same ones"),
    ],
)
def test_other_rows_are_not_compared(second, message):
    with pytest.raises(ValueError, match=message):
        compare({"dolly": ONE}, second)
