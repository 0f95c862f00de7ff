"""What runs are compared by."""

from typing import NamedTuple

import numpy as np

from adakd_jax.studies.results import RunResult


class Metric(NamedTuple):
    """A held-out number of a run: Σ value / Σ weight over held-out examples.

    Attributes:
        name: key in `RunResult.metrics`.
        title: column heading.
        lower_is_better: which way is better.
        scale: factor of what is shown.
        digits: decimals of what is shown.
        by_example: whether it is a mean over examples; others are compared by seeds alone.
    """

    name: str
    title: str
    lower_is_better: bool
    scale: float = 1.0
    digits: int = 3
    by_example: bool = True

    def shown(self, value: float, *, sign: bool = False) -> str:
        """A value as it stands in tables, with its sign if it is a difference."""
        return f"{value * self.scale:{'+' if sign else ''}.{self.digits}f}"

    def examples(self, result: RunResult) -> tuple[np.ndarray, np.ndarray]:
        """Values and weights of the held-out examples: float64 [N] each."""
        if self.name == "rouge_l":
            return np.asarray(result.rouge_l, np.float64), np.ones(len(result.rouge_l))
        documents = result.documents
        return np.asarray(documents[self.name]), np.asarray(documents["tokens"], np.float64)


METRICS = (
    Metric("nll", "NLL", lower_is_better=True),
    Metric("forward_kl", "forward KL", lower_is_better=True),
    Metric("reverse_kl", "reverse KL", lower_is_better=True),
    Metric("top1_agreement", "top-1 agreement %", lower_is_better=False, scale=100, digits=2),
    Metric(
        "calibration_error",
        "calibration error %",
        lower_is_better=True,
        scale=100,
        digits=2,
        by_example=False,
    ),
    Metric("rouge_l", "ROUGE-L × 100", lower_is_better=False, scale=100, digits=2),
)
