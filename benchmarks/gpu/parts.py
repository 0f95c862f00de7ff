"""The parts, most telling first, and how long each may take on an H100."""

import importlib
from typing import NamedTuple

from benchmarks.gpu.options import Part


class Planned(NamedTuple):
    """A part of the benchmark.

    Attributes:
        title: what it finds out.
        function: MODULE.NAME in benchmarks/gpu.
        seconds: it is stopped after so many, its process's start included.
        environment: variables of its process.
    """

    title: str
    function: str
    seconds: float
    environment: tuple[tuple[str, str], ...] = ()

    def load(self) -> Part:
        """The function; imports what it needs."""
        module, name = self.function.split(".")
        return getattr(importlib.import_module(f"benchmarks.gpu.{module}"), name)


# A process that measures memory alone may have nearly all of it.
_MOST = (("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92"),)
PARTS = {
    "product": Planned("the speed of a large product in bfloat16", "device.product", 15),
    "loss": Planned("chunked loss and gradients against dense", "loss.loss", 25),
    "attention": Planned("attention against XLA's, packed, windows", "attention.attention", 25),
    "smollm2": Planned("the real teacher's logits against CPU", "logits.smollm2", 20),
    "large": Planned("Qwen2-7B → 1.5B: steps, plain and AdaKD", "steps.large", 75, _MOST),
    "steps": Planned("SmolLM2: steps of 8 to 128 rows, plain and AdaKD", "steps.steps", 60, _MOST),
    "torch_steps": Planned("SmolLM2: ours beside torch and TRL", "peers.torch_steps", 90),
    "families": Planned("logits of every family against CPU", "logits.families", 40),
    "generation": Planned("generation beside torch, batches of 1 to 128", "peers.generation", 45),
    "plan": Planned("the plan against what was measured", "planned.plan", 60),
    "torch_large": Planned("Qwen2-7B → 1.5B: ours beside torch", "peers.torch_large", 60),
}
TOTAL_SECONDS = 240.0
