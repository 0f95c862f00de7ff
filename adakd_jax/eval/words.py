"""Words of texts in any script, and which texts need them: usual metrics know a-z and 0-9 only."""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

from rouge_score.tokenizers import DefaultTokenizer, Tokenizer

# Scripts without spaces between words, or with words too long to compare: by character.
_BY_CHARACTER = (
    *("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "YI"),
    *("THAI", "LAO", "KHMER", "MYANMAR"),
)
# Fewer words of other scripts than this leave a text to the usual words.
_LEAST_SHARE = 1 / 3


class AnyScript(Tokenizer):
    """A tokenizer for `rouge_score` that knows every script.

    A word is a run of letters, digits and marks on them, in lower case and compatibility form
    (NFKC); of Chinese, Japanese, Korean, Thai, Lao, Khmer and Burmese, it is one character with its
    marks. Words of a-z and 0-9 are `rouge_score`'s own, stems included.
    """

    def __init__(self) -> None:
        """Takes nothing."""
        self._usual = DefaultTokenizer(use_stemmer=True)

    def tokenize(self, text: str) -> list[str]:
        """The words in order."""
        found = [self._usual.tokenize(w) if w.isascii() else [w] for w in _runs(text)]
        return [word for words in found for word in words]


def needs_any_script(texts: Sequence[str]) -> bool:
    """Whether the usual words miss too much of some texts.

    That is so where a third of the words or more, over all of them, have letters of another
    script than Latin, or where a text has words but none with a to z or a digit in it.
    """
    runs = [_runs(text) for text in texts]
    words = [word for each in runs for word in each]
    others = sum(any(not _is_latin(character) for character in word) for word in words)
    unseen = any(each and not re.search("[a-z0-9]", "".join(each)) for each in runs)
    return unseen or (others > 0 and others >= _LEAST_SHARE * len(words))


def _runs(text: str) -> list[str]:
    found: list[str] = []
    alone = True  # whether the last one is not to be continued by letters
    for character in unicodedata.normalize("NFKC", text).lower():
        kind = unicodedata.category(character)
        if kind == "Cf":  # a joiner or a direction mark inside a word, which nobody sees
            continue
        if kind[0] not in "LNM":
            alone = True
        elif found and (kind[0] == "M" or not (alone or _is_by_character(character))):
            found[-1] += character
        else:
            found.append(character)
            alone = _is_by_character(character)
    return found


@cache
def _is_by_character(character: str) -> bool:
    return unicodedata.name(character, "").startswith(_BY_CHARACTER)


@cache
def _is_latin(character: str) -> bool:
    """Whether it is a Latin letter, or none of any script."""
    is_letter = unicodedata.category(character)[0] == "L"
    return not is_letter or unicodedata.name(character, "LATIN").startswith("LATIN")
