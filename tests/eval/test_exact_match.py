import pytest

from adakd_jax.eval.exact_match import exact_match, normalised


@pytest.mark.parametrize(
    ("answer", "references", "score"),
    [
        ("The  Eiffel Tower.", ["a eiffel tower"], 1.0),
        ("another", ["nother"], 0.0),  # an article is a word
        ("42", ["forty-two", "42!"], 1.0),
        ("yes, it is", ["yes"], 0.0),
        ("", ["the"], 1.0),
    ],
)
def test_an_answer_matches_any_reference_up_to_spelling(answer, references, score):
    assert exact_match(answer, references) == score


def test_normalised_keeps_other_alphabets():
    assert normalised("  Žluťoučký\tKŮŇ, ok? ") == "žluťoučký kůň ok"
