"""The mathematics of token-adaptive distillation, on arrays alone.

One token policy, four slots: score (how difficult) → focus (which count) → temperature →
divergence.
"""

from adakd_jax.axes import CachedTeacher, Head
from adakd_jax.distill.buckets import bucket_logits, keep_top, to_buckets
from adakd_jax.distill.divergence import DIVERGENCES, divergence
from adakd_jax.distill.features import mapped_layers
from adakd_jax.distill.focus import FOCI, is_review, select_top_ratio
from adakd_jax.distill.latf import LatfState, latf
from adakd_jax.distill.objective import denominators, distillation_loss
from adakd_jax.distill.scores import SCORES, token_scores
from adakd_jax.distill.signals import Denominators, Features, LossReport, Signals
from adakd_jax.distill.temperature import TEMPERATURES, idts_temperature, token_temperature
from adakd_jax.distill.vocab_loss import vocab_distillation_loss

__all__ = [
    "DIVERGENCES",
    "FOCI",
    "SCORES",
    "TEMPERATURES",
    "CachedTeacher",
    "Denominators",
    "Features",
    "Head",
    "LatfState",
    "LossReport",
    "Signals",
    "bucket_logits",
    "denominators",
    "distillation_loss",
    "divergence",
    "idts_temperature",
    "is_review",
    "keep_top",
    "latf",
    "mapped_layers",
    "select_top_ratio",
    "to_buckets",
    "token_scores",
    "token_temperature",
    "vocab_distillation_loss",
]
