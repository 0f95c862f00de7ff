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
    kind = model.config.model_type
    one_plus = any(name in kind for name in ("gemma", "qwen3_5", "qwen3_next"))
    one_plus = one_plus and "gemma4" not in kind
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Gemma and Qwen3.5 multiply by 1 + weight.
            plain = "linear_attn.norm" in name or not one_plus
            is_norm = "norm" in name or "ln_" in name
            parameter.normal_(0.0, 0.15)
            if name.endswith("A_log"):
                parameter.uniform_(-3.0, 1.0)
            if "router.scale" in name or "per_expert_scale" in name:
                parameter.add_(1.0)
            if "router.proj" in name:
                # Scores that are nearly the same would be in another order here than there.
                parameter.mul_(20.0)
            if is_norm and name.endswith("weight") and plain:
                parameter.add_(1.0)
        for name, buffer in model.named_buffers():
            if name.endswith("layer_scalar"):
                buffer.uniform_(0.5, 1.5)
    return model.eval()
