"""Answers in blocks: a caller keeps each block before the next one begins."""

from collections.abc import Iterator, Sequence

from adakd_jax.config import GenerationConfig
from adakd_jax.console import Console
from adakd_jax.eval.answers import Answer, answer_prompts, check_answerable
from adakd_jax.eval.generate import GenerationProgress
from adakd_jax.eval.progress import shown_generation
from adakd_jax.hf.pretrained import Pretrained

_BATCHES_A_BLOCK = 4  # what an interruption can lose


def answer_blocks(
    model: Pretrained,
    prompts: Sequence[Sequence[int]],
    settings: GenerationConfig,
    *,
    sample_ids: Sequence[int],
    seed: int = 0,
    what: str = "answering",
    console: Console | None = None,
) -> Iterator[tuple[int, list[Answer]]]:
    """Yields the place of a block's first prompt, and the answers to its prompts in order.

    Args:
      model: who answers.
      prompts: token ids of each prompt.
      settings: how to sample.
      sample_ids: what makes the samples of a seed differ, one a prompt.
      seed: of sampling.
      what: names the work where progress is shown.
      console: where to show it; by default stderr.

    Raises:
      ValueError: of any prompt, before the first is answered; see `check_answerable`.
    """
    check_answerable(model, prompts, settings)
    size = settings.batch_size * _BATCHES_A_BLOCK
    tokens = 0
    with shown_generation(what, console) as show:
        for start in range(0, len(prompts), size):

            def progress(
                done: GenerationProgress, start: int = start, tokens: int = tokens
            ) -> None:
                show(GenerationProgress(start + done.answered, len(prompts), tokens + done.tokens))

            block = slice(start, start + size)
            answers = answer_prompts(
                model,
                prompts[block],
                settings,
                seed=seed,
                sample_ids=sample_ids[block],
                progress=progress,
            )
            tokens += sum(answer.tokens for answer in answers)
            yield start, answers
