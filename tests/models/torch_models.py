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
    gemma = "gemma" in model.config.model_type
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_norm = "norm" in name or "ln_" in name
            parameter.normal_(0.0, 0.15)
            if is_norm and name.endswith("weight") and not gemma:
                parameter.add_(1.0)
    return model.eval()
