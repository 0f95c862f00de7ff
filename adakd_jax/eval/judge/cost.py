"""What questions to the judge will cost, before they are asked."""

from collections.abc import Sequence
from typing import NamedTuple

from adakd_jax.eval.judge.question import Question

_CHARACTERS_A_TOKEN = 4  # of English text, about


class Estimate(NamedTuple):
    """What questions will cost.

    Attributes:
      calls: how many; retries come on top.
      prompt_tokens: about: one per four characters, as in English text.
      completion_tokens: at most.
      price: at most, in the currency of the prices; None without prices.
    """

    calls: int
    prompt_tokens: int
    completion_tokens: int
    price: float | None

    def summary(self) -> str:
        """One line."""
        price = "unknown without --price_input and --price_output"
        if self.price is not None:
            price = f"at most about {self.price:.2f}"
        return (
            f"{self.calls:,} calls, about {self.prompt_tokens:,} tokens in, at most "
            f"{self.completion_tokens:,} tokens out, cost {price}"
        )


def estimate(
    questions: Sequence[Question],
    max_tokens: int,
    price_input: float | None = None,
    price_output: float | None = None,
) -> Estimate:
    """Estimates tokens and price before anything is asked.

    Args:
      questions: what will be asked.
      max_tokens: of a reply.
      price_input: of a million tokens in.
      price_output: of a million tokens out.
    """
    characters = sum(
        len(message["content"]) for each in questions for message in each.request["messages"]
    )
    tokens_in, tokens_out = -(-characters // _CHARACTERS_A_TOKEN), max_tokens * len(questions)
    price = None
    if price_input is not None and price_output is not None:
        price = (tokens_in * price_input + tokens_out * price_output) / 1e6
    return Estimate(len(questions), tokens_in, tokens_out, price)
