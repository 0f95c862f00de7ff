import numpy as np
import pytest

from adakd_jax.eval.bootstrap import bootstrap_interval
from adakd_jax.eval.rouge import rouge_l


def test_scores_worked_out_by_hand():
    answers = ["the cat sat on the mats", "Running quickly!", "nothing shared", ""]
    references = [
        # the|cat|…|…|the|… against the|cats→cat|are|sitt: 2 of 6 and 2 of 4 words in common.
        ["the cats are sitting"],
        # Stems: run, quickli. The second reference is a perfect match, the first half of one.
        ["run", "runs quickly"],
        ["else entirely"],
        ["empty answer"],
    ]
    result = rouge_l(answers, references)
    assert result.scores == pytest.approx((0.4, 1.0, 0.0, 0.0))
    assert result.mean == pytest.approx(0.35)


def test_word_order_counts_but_gaps_do_not():
    scores = rouge_l(["a b c d", "d c b a"], [["a x b y c z d"]] * 2).scores
    # 4 of 4 and 4 of 7: F1 = 8/11. Reversed, one word in common: 1/4 and 1/7.
    assert scores == pytest.approx((8 / 11, 2 / 11))


def test_interval_is_seeded_and_contains_the_mean():
    values = np.random.default_rng(0).beta(2, 5, size=200)
    low, high = bootstrap_interval(values, seed=3)
    assert low < values.mean() < high
    assert (low, high) == bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)
    # The interval of a mean is its normal approximation's here, 200 values being many.
    half = 1.96 * values.std() / np.sqrt(200)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_one_example_has_an_interval_of_no_width():
    result = rouge_l(["one two"], [["one three"]])
    assert result.low == result.mean == result.high == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("answers", "references", "message"),
    [([], [], "at least one"), (["a"], [], "1 and 0"), (["a", "b"], [["a"], []], "example 1")],
)
def test_unusable_input_is_named(answers, references, message):
    with pytest.raises(ValueError, match=message):
        rouge_l(answers, references)
