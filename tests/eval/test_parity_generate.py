import pytest
import torch
from transformers import AutoModelForCausalLM

from adakd_jax.config import GenerationConfig
from adakd_jax.eval.generate import generate
from adakd_jax.hf.export import save_pretrained

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_greedy_answers_are_those_of_transformers(tiny_pretrained, tmp_path, penalty):
    folder = save_pretrained(tiny_pretrained, tmp_path / "model")
    reference = AutoModelForCausalLM.from_pretrained(folder)
    settings = GenerationConfig(max_new_tokens=18, batch_size=3, repetition_penalty=penalty)
    prompts = [[5, 17, 40], [301, 9, 88, 120, 7, 64, 30], [200]]
    ends = (tiny_pretrained.tokenizer.eos_token_id, 77)
    answers = generate(
        tiny_pretrained.graphdef,
        tiny_pretrained.params,
        prompts,
        settings,
        eos_ids=ends,
        pad_id=0,
    )
    for prompt, answer in zip(prompts, answers, strict=True):
        expected = reference.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=18,
            do_sample=False,
            repetition_penalty=penalty,
            eos_token_id=list(ends),
            pad_token_id=0,
        )
        assert answer == expected[0, len(prompt) :].tolist()
