"""Whether an answer says exactly what a reference says, spelling aside."""

import re
import string
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1.0 if the answer equals one of its references after `normalised`, else 0.0."""
    said = normalised(answer)
    return float(any(said == normalised(reference) for reference in references))


def normalised(text: str) -> str:
    """Lower case, without ASCII punctuation, without the words a, an and the, one space between.

    References: Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of
    Text", section 6.1.
    """
    plain = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", plain).split())
