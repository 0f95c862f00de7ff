"""Tokens that know their part of the row: what an over-long row loses, and what it keeps.

A prompt that is longer than prompts may be loses the middle of its input, then that of its
instruction, never a word of the template. What it loses does not depend on the answer, so that it
is the same in training and in generation. A row that is then still too long loses the end of its
answer, and with it the EOS target.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int8, Int32

from adakd_jax.data.rows import RowError
from adakd_jax.data.templates import Part, Segment

# Marks a token that reaches from what is given into what is learned.
ACROSS = -1
ANSWER = int(Part.ANSWER)


class Cuts(NamedTuple):
    """How many tokens an over-long row lost, and of what."""

    input: int = 0
    instruction: int = 0
    answer: int = 0


class Pieces(NamedTuple):
    """Tokens, and the `Part` of each."""

    tokens: Int32[np.ndarray, " T"]
    parts: Int8[np.ndarray, " T"]

    def keep(self, kept: Bool[np.ndarray, " T"]) -> "Pieces":
        """Picks the tokens that `kept` marks."""
        return Pieces(self.tokens[kept], self.parts[kept])


def join(pieces: Sequence[Pieces]) -> Pieces:
    """Puts pieces end to end."""
    return Pieces(*(np.concatenate(arrays) for arrays in zip(*pieces, strict=True)))


def token_parts(
    spans: Int[np.ndarray, "T 2"], segments: Sequence[Segment]
) -> Int8[np.ndarray, " T"]:
    """The part of each token; one that touches the template's words counts as the template's.

    Args:
      spans: where each token's text begins and ends, in characters.
      segments: the text's segments.

    Returns:
      A `Part` per token; ACROSS for one that reaches from a prompt into an answer.
    """
    ends = np.cumsum([len(segment.text) for segment in segments])
    kinds = np.array([segment.part for segment in segments], np.int8)
    # Tokenizers that trim spaces give white space an empty span after it: look one character back.
    starts = np.where(
        (spans[:, 0] == spans[:, 1]) & (spans[:, 0] > 0), spans[:, 0] - 1, spans[:, 0]
    )
    last = np.maximum(spans[:, 1] - 1, starts)
    first_kind, last_kind = (
        kinds[np.minimum(np.searchsorted(ends, place, side="right"), len(kinds) - 1)]
        for place in (starts, last)
    )
    parts = np.where((first_kind == last_kind) | (first_kind == ANSWER), first_kind, 0)
    parts[(last_kind == ANSWER) & (first_kind != ANSWER)] = ACROSS
    return parts.astype(np.int8)


def fit_prompt(pieces: Pieces, max_prompt_length: int) -> tuple[Pieces, Cuts]:
    """Cuts the middle of the input, then that of the instruction of a prompt that is too long.

    Args:
      pieces: a row; its prompt is all that stands before the first answer.
      max_prompt_length: tokens of the prompt, at most.

    Returns:
      The row with a prompt that fits, and what it lost.

    Raises:
      RowError: the prompt is too long without all that may be cut.
    """
    excess = _prompt_length(pieces) - max_prompt_length
    if excess <= 0:
        return pieces, Cuts()
    shorter = _cut_middle(pieces, Part.INPUT, excess)
    from_input = len(pieces.tokens) - len(shorter.tokens)
    excess = _prompt_length(shorter) - max_prompt_length
    result = _cut_middle(shorter, Part.INSTRUCTION, excess)
    from_instruction = len(shorter.tokens) - len(result.tokens)
    if _prompt_length(result) > max_prompt_length:
        raise RowError(
            "the prompt without all that may be cut is longer than "
            f"max_prompt_length {max_prompt_length}"
        )
    return result, Cuts(from_input, from_instruction)


def _prompt_length(pieces: Pieces) -> int:
    is_answer = pieces.parts == ANSWER
    return int(is_answer.argmax()) if is_answer.any() else len(is_answer)


def _cut_middle(pieces: Pieces, part: Part, excess: int) -> Pieces:
    """Takes `excess` tokens, or all there are, out of the middle of a part of the prompt."""
    places = np.flatnonzero(pieces.parts[: _prompt_length(pieces)] == part)
    count = min(max(excess, 0), len(places))
    begin = (len(places) - count + 1) // 2
    kept = np.ones(len(pieces.tokens), bool)
    kept[places[begin : begin + count]] = False
    return pieces.keep(kept)
