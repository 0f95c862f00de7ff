"""The pairs that are trained: SmolLM2 as the quickstart halves it, Qwen2-7B → 1.5B; tiny ones."""

from pathlib import Path
from typing import Any

from adakd_jax.config.yaml_file import read_yaml
from benchmarks.cases import Setting, smollm2
from benchmarks.gpu.tiny_models import TINY

ROOT = Path(__file__).parents[2]
QUICKSTART_LAYERS = 15
# As peft calls it; the paper's settings, which configs/qwen2_7b_to_1.5b.yaml has too.
LORA: dict[str, Any] = {
    "r": 16,
    "lora_alpha": 64,
    "lora_dropout": 0.1,
    "target_modules": ["q_proj", "v_proj"],
}


def precision(small: bool) -> str:
    """What a run computes in: bfloat16, and float32 on a CPU."""
    return "float32" if small else "bfloat16"


def smollm2_pair(small: bool, device: str = "cpu") -> Setting:
    """30 layers and 15 of them."""
    if small:
        return Setting(TINY["llama"], TINY["llama"] | {"num_hidden_layers": 2}, device=device)
    return smollm2(precision(small), device, QUICKSTART_LAYERS)


def qwen2_pair(small: bool, lora: bool, device: str = "cpu") -> Setting:
    """The shapes of configs/qwen2_7b_to_1.5b.yaml."""
    if small:
        teacher, student = TINY["qwen2"] | {"hidden_size": 96}, TINY["qwen2"]
    else:
        run = read_yaml(str(ROOT / "configs" / "qwen2_7b_to_1.5b.yaml")).values
        teacher, student = (dict(run[who]["architecture"]) for who in ("teacher", "student"))
    return Setting(teacher, student, precision(small), device, LORA if lora else None)
