"""`generate` of `transformers`: greedy, no end token."""

import os
from collections.abc import Callable

import torch
from transformers import AutoModelForCausalLM

from benchmarks.cases import EXPORTED_TEACHER, Batch


def make_step(kind: str, batches: list[Batch]) -> Callable[[Batch], float]:
    """Answers a batch of prompts; returns the mean of the new token ids, to compare."""
    del kind
    torch.set_num_threads(os.cpu_count() or 1)
    model = AutoModelForCausalLM.from_pretrained(EXPORTED_TEACHER, dtype=torch.float32).eval()
    new_tokens = batches[0].labels.shape[1]

    @torch.inference_mode()
    def step(batch: Batch) -> float:
        prompts = torch.from_numpy(batch.tokens).long()
        answers = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=0,
        )
        return float(answers[:, prompts.shape[1] :].double().mean())

    return step
