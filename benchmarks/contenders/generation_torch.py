"""`generate` of `transformers`: greedy, no end token."""

import os
from collections.abc import Callable

import torch
from transformers import AutoModelForCausalLM

from benchmarks.cases import EXPORTED_TEACHER, Batch, Setting


def make_step(
    kind: str, batches: list[Batch], setting: Setting | None = None
) -> Callable[[Batch], float]:
    """Answers a batch of prompts; returns the mean of the new token ids, to compare."""
    del kind
    folder, dtype, device = EXPORTED_TEACHER, "float32", "cpu"
    if setting is not None:
        folder, dtype, device = setting.teacher["path"], setting.dtype, setting.device
    torch.set_num_threads(os.cpu_count() or 1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    model = model.to(device).eval()
    new_tokens = batches[0].labels.shape[1]

    @torch.inference_mode()
    def step(batch: Batch) -> float:
        prompts = torch.from_numpy(batch.tokens).long().to(device)
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
