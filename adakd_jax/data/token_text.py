"""Tokens as people read them: a text in pieces, and single tokens on their own."""

from collections.abc import Iterable, Sequence

from transformers import PreTrainedTokenizerBase

# What a decoder puts where bytes are no whole character.
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


def text_pieces(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> list[str]:
    """What each token adds to the text; the pieces together are the text.

    A character that several tokens share stands at the last of them, and the others have "".

    Args:
      tokenizer: of the model.
      tokens: ids, special tokens included, which are shown.

    Returns:
      One piece per token.
    """
    pieces, shown = [], 0
    for end in range(1, len(tokens) + 1):
        text = _decoded(tokenizer, tokens[:end])
        waits = text.endswith(_INCOMPLETE) and end < len(tokens)
        whole = len(text.rstrip(_INCOMPLETE)) if waits else len(text)
        pieces.append(text[shown:whole])
        shown = max(shown, whole)
    return pieces


def token_texts(tokenizer: PreTrainedTokenizerBase, tokens: Iterable[int]) -> dict[int, str]:
    """The text of each token inside a sentence: with its leading space, if it has one."""
    # Some decoders drop the space in front of a text, so another token stands there.
    before = tokenizer("a", add_special_tokens=False)["input_ids"][-1:]
    skipped = len(_decoded(tokenizer, before))
    return {token: _decoded(tokenizer, [*before, token])[skipped:] for token in sorted(set(tokens))}


def _decoded(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    text = tokenizer.decode(
        list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return text if isinstance(text, str) else "".join(text)
