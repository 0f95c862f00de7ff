"""With which tokens a chat template ends an assistant's turn."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast

from adakd_jax.data.chat_render import PROBE, QUESTION, ChatRenderer
from adakd_jax.data.messages import Message, RowError

_ANSWER: Message = {"role": "assistant", "content": PROBE}
_CALL: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "call00000",
            "type": "function",
            "function": {"name": "probe", "arguments": {"probe": PROBE}},
        }
    ],
}
_TOOL = {
    "type": "function",
    "function": {
        "name": "probe",
        "description": "probe",
        "parameters": {"type": "object", "properties": {"probe": {"type": "string"}}},
    },
}


class TurnEnds(NamedTuple):
    """What a template writes after the words of an assistant.

    `text` is all of it up to and with the first special tokens, "" if nothing is written. `last`
    are the texts that end a last turn, an answer or a call of a tool; `middle` those that end
    earlier turns besides. `tokens` are the ids of `last`; none where a turn ends with words, or
    with nothing.
    """

    text: str
    last: tuple[str, ...]
    middle: tuple[str, ...] = ()
    tokens: tuple[int, ...] = ()

    def without_end(self, answer: str) -> str:
        """An answer without what ends its turn."""
        stripped = answer.rstrip()
        for end in (self.text, *self.last, *self.middle):
            if end and stripped.endswith(end):
                return stripped.removesuffix(end)
        return answer


def turn_ends(renderer: ChatRenderer) -> TurnEnds:
    """What ends an assistant's turn in a chat template.

    Raises:
      ValueError: the template cannot write a question and its answer.
    """
    special = _Special(renderer.tokenizer)
    try:
        tail = _tail(renderer.render([QUESTION, _ANSWER]))
    except RowError as error:
        raise ValueError(f"a question and its answer: {error}") from error
    found = special.together.search(tail)
    if found is None:
        text = tail.rstrip()
        return TurnEnds(text, (text,) if text else ())
    text = tail[: found.end()]
    end = special.tokens_of(found[0])[-1]
    last = tuple(dict.fromkeys((end, *_ends_of_call(renderer, special))))
    ids = [renderer.tokenizer.convert_tokens_to_ids(each) for each in last]
    tokens = tuple(number for number in ids if isinstance(number, int))
    return TurnEnds(text, last, tuple(_ends_between(renderer, special, text)), tokens)


class _Special:
    """Finds special tokens: alone, and `together` where they follow each other at once."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        added = tokenizer.added_tokens_decoder.values()
        special = [str(token) for token in added if token.special] or [str(t) for t in added]
        longest_first = sorted(filter(None, special), key=len, reverse=True)
        any_of = "|".join(map(re.escape, longest_first)) or r"(?!)"
        self._single, self.together = re.compile(any_of), re.compile(f"(?:{any_of})+")

    def tokens_of(self, text: str) -> list[str]:
        return self._single.findall(text)


def _ends_of_call(renderer: ChatRenderer, special: _Special) -> Sequence[str]:
    """The last special token after a call of a tool, if that is written with it once only."""
    row = {"tools": [_TOOL], "template_kwargs": {}}
    try:
        text = renderer.render([QUESTION, _CALL], row)
        written = text.removeprefix(renderer.render([QUESTION], row))
    except RowError:  # a template need not know calls
        return ()
    found = special.tokens_of(_tail(text))[-1:]
    return [end for end in found if written.count(end) == 1]


def _ends_between(renderer: ChatRenderer, special: _Special, text: str) -> Sequence[str]:
    """What ends an answer that more turns follow, where that is another token."""
    try:
        tail = _tail(renderer.render([QUESTION, _ANSWER, QUESTION]))
    except RowError:  # a template need not know conversations of several turns
        return ()
    return () if tail.startswith(text) else special.tokens_of(tail)[:1]


def _tail(text: str) -> str:
    """What follows the probe; "" where it is not written."""
    return text.rpartition(PROBE)[2] if PROBE in text else ""
