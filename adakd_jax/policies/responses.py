"""From the examples of a step to the same prompts with responses that a model has just written."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from flax import nnx

from adakd_jax.config import GenerationConfig
from adakd_jax.data.tokenize import Example
from adakd_jax.eval.generate import generate


def prompt_of(example: Example) -> np.ndarray:
    """What stands before the last answer of an example: of a conversation, all earlier turns.

    Raises:
      ValueError: there is nothing before it, as in rows of plain text.
    """
    learned = np.flatnonzero(example.targets)
    gaps = np.flatnonzero(np.diff(learned) > 1)
    start = int(learned[gaps[-1] + 1] if len(gaps) else learned[0])
    if start == 0:
        raise ValueError(
            "an example has no prompt to answer; policies other than offline need prompts: "
            "data.template alpaca or chat"
        )
    return np.asarray(example.tokens[:start])


def respond(
    graphdef: nnx.GraphDef,
    params: Any,
    examples: Sequence[Example],
    settings: GenerationConfig,
    *,
    eos_ids: Sequence[int],
    pad_id: int,
    seed: int,
    max_length: int,
    vocabulary: int | None = None,
) -> list[Example]:
    """Has a model answer the prompts of examples; the end token it wrote is learned as well.

    Args:
      graphdef: structure of the model.
      params: its weights, which are not copied.
      examples: whose prompts are answered.
      settings: how to sample.
      eos_ids: tokens that end an answer.
      pad_id: what fills prompts up on the left.
      seed: of sampling.
      max_length: tokens of an example, at most: longer answers are cut.
      vocabulary: how many tokens, the first ones, may be written; None: all.

    Returns:
      An example for each: the prompt, then the response as its targets.
    """
    prompts = [prompt_of(example) for example in examples]
    answers = generate(
        graphdef,
        params,
        [prompt.tolist() for prompt in prompts],
        settings,
        eos_ids=eos_ids,
        pad_id=pad_id,
        seed=seed,
        vocabulary=vocabulary,
    )
    return [
        _joined(prompt, answer, max_length) for prompt, answer in zip(prompts, answers, strict=True)
    ]


def _joined(prompt: np.ndarray, answer: Sequence[int], max_length: int) -> Example:
    tokens = np.concatenate([prompt, np.asarray(answer, np.int32)])[:max_length]
    return Example(tokens, np.arange(len(tokens)) >= len(prompt))
