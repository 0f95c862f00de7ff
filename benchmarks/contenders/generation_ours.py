"""Our `generate`: greedy, no end token."""

from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp

from adakd_jax import load_pretrained
from adakd_jax.config import GenerationConfig
from adakd_jax.eval.generate import generate
from benchmarks.cases import EXPORTED_TEACHER, Batch, Setting


def make_step(
    kind: str, batches: list[Batch], setting: Setting | None = None
) -> Callable[[Batch], float]:
    """Answers a batch of prompts; returns the mean of the new token ids, to compare."""
    del kind
    folder, dtype = EXPORTED_TEACHER, "float32"
    if setting is not None:
        folder, dtype = Path(str(setting.teacher["path"])), setting.dtype
    model = load_pretrained(folder, dtype=jnp.dtype(dtype))
    rows, new_tokens = batches[0].labels.shape
    settings = GenerationConfig(max_new_tokens=new_tokens, batch_size=rows)

    def step(batch: Batch) -> float:
        prompts = batch.tokens.tolist()
        answers = generate(model.graphdef, model.params, prompts, settings, eos_ids=(-1,), pad_id=0)
        return sum(map(sum, answers)) / batch.response_tokens

    return step
