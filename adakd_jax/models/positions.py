"""How long a text a model can read: a limit where positions are learned, a remark where not."""

from collections.abc import Sequence
from typing import NamedTuple

from adakd_jax.models.config import DecoderConfig


class Reads(NamedTuple):
    """How many tokens a model is to read at once, and what they are, as settings name them."""

    what: str
    tokens: int


class TooLongError(ValueError):
    """A model has fewer learned positions than it is to read tokens."""


def check_positions(config: DecoderConfig, reads: Sequence[Reads], who: str) -> None:
    """Refuse what is longer than learned position embeddings.

    Args:
        config: of the model; with rotary positions it reads any length.
        reads: all that it is to read.
        who: names the model in the message, such as "the student".

    Raises:
        TooLongError: names everything that is too long.
    """
    longer = [] if config.ropes else _longer(config, reads)
    if longer:
        raise TooLongError(
            f"{who} has learned positions for {config.max_positions:,} tokens, but "
            f"{'; '.join(longer)}; valid: at most {config.max_positions:,}, or a model with more "
            "positions"
        )


def position_remark(config: DecoderConfig, reads: Sequence[Reads], who: str) -> str | None:
    """What is longer than a model with rotary positions was made for; None if nothing is."""
    longer = _longer(config, reads) if config.ropes else []
    if not longer:
        return None
    return (
        f"{'; '.join(longer)}: {who} was made for {config.max_positions:,} tokens "
        "(max_position_embeddings), and may do badly beyond"
    )


def _longer(config: DecoderConfig, reads: Sequence[Reads]) -> list[str]:
    limit = config.max_positions
    return [f"{each.what} is {each.tokens:,}" for each in reads if each.tokens > limit]
