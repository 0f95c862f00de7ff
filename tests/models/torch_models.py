"""Random torch models of transformers."""

import zlib
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.models.family_cases import CASES


def torch_model(case: str) -> Any:
    """A model of `CASES`, see `randomised`."""
    fields = dict(CASES[case])
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return randomised(model, case)


def randomised(model: Any, seed: str) -> Any:
    """The model with weights that are large enough that every part of it matters."""
    torch.manual_seed(zlib.crc32(seed.encode()))
    one_plus = any(name in model.config.model_type for name in ("gemma", "qwen3_5", "qwen3_next"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Gemma and Qwen3.5 multiply by 1 + weight.
            plain = "linear_attn.norm" in name or not one_plus
            is_norm = "norm" in name or "ln_" in name
            parameter.normal_(0.0, 0.15)
            if name.endswith("A_log"):
                parameter.uniform_(-3.0, 1.0)
            if is_norm and name.endswith("weight") and plain:
                parameter.add_(1.0)
    return model.eval()
