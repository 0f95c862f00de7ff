"""Whether an answer says exactly what a reference says, spelling aside."""

import re
import string
import unicodedata
from collections.abc import Sequence

from adakd_jax.eval.words import needs_any_script

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1.0 if the answer equals one of its references after `normalised`, else 0.0."""
    wide = needs_any_script(references)
    said = normalised(answer, any_script=wide)
    return float(any(said == normalised(each, any_script=wide) for each in references))


def normalised(text: str, *, any_script: bool = False) -> str:
    """Lower case, without ASCII punctuation, without the words a, an and the, one space between.

    Args:
      text: what is compared.
      any_script: in compatibility form (NFKC) and without any punctuation that Unicode knows, as
        for answers in other scripts than Latin.

    References: Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of
    Text", section 6.1; Lewis et al. 2020, "MLQA", for other scripts.
    """
    plain = text.lower().translate(_PUNCTUATION)
    if any_script:
        whole = unicodedata.normalize("NFKC", text).lower()
        plain = "".join(each for each in whole if unicodedata.category(each)[0] != "P")
    return " ".join(_ARTICLES.sub(" ", plain).split())
