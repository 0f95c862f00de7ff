"""PyTorch: an ordinary training loop around `transformers` models, with three losses.

`reverse_kl` and `adakd` are written as the papers' released code is: logits [B, T, V] of both
models, the divergence of every position, then a mask. `trl_gkd` is TRL's `GKDTrainer` loss as it
is, with its defaults (generalized JSD, beta = 0.5), inside the same loop.
"""

import math
import os
from collections.abc import Callable

import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks import cases
from benchmarks.cases import IGNORE, Batch, Setting

KEEP_RATIO, STRENGTH = 0.75, 0.5

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def reverse_kl_per_token(student_logits: torch.Tensor, teacher_logits: torch.Tensor):
    """KL(q ‖ p) in nats, [B, T, V] → [B, T]."""
    log_q = F.log_softmax(student_logits, dim=-1)
    log_p = F.log_softmax(teacher_logits, dim=-1)
    return (log_q.exp() * (log_q - log_p)).sum(-1)


def reverse_kl_loss(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Mean reverse KL over response tokens, temperature 1."""
    mask = (labels != IGNORE).float()
    return (reverse_kl_per_token(student_logits, teacher_logits) * mask).sum() / mask.sum()


def hellinger_scores(student_logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
    """Hellinger distance between the two distributions, [B, T, V] → [B, T]."""
    root_q = F.softmax(student_logits, dim=-1).sqrt()
    root_p = F.softmax(teacher_logits, dim=-1).sqrt()
    return (0.5 * (root_p - root_q).square().sum(-1)).sqrt()


def select_top_ratio(scores: torch.Tensor, response: torch.Tensor, ratio: float) -> torch.Tensor:
    """Mask of the floor(ratio · n) hardest response tokens, ties to the lower flat index."""
    indices = response.flatten().nonzero().squeeze(1)
    count = max(1, math.floor(ratio * len(indices) + 1e-4))
    order = scores.flatten()[indices].argsort(descending=True, stable=True)
    selected = torch.zeros_like(response.flatten())
    selected[indices[order[:count]]] = True
    return selected.view_as(response)


def idts_temperature(scores: torch.Tensor, selected: torch.Tensor) -> torch.Tensor:
    """τ = exp(−c·ŝ), ŝ = (s² − m²)/(s² + m²), m the lower median of the selected scores."""
    square = scores.square()
    median = scores[selected].median().square()  # torch's median is the lower one
    return torch.exp(-STRENGTH * ((square - median) / (square + median)).nan_to_num(0.0))


def adakd_loss(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """AdaKD: reverse KL of the hardest tokens, each at its own temperature, times τ²."""
    with torch.no_grad():
        scores = hellinger_scores(student_logits, teacher_logits)
        selected = select_top_ratio(scores, labels != IGNORE, KEEP_RATIO)
        tau = idts_temperature(scores, selected)
    soft = tau.unsqueeze(-1)
    per_token = reverse_kl_per_token(student_logits / soft, teacher_logits / soft)
    return (tau.square() * per_token * selected).sum() / selected.sum()


def trl_gkd_loss() -> Loss:
    """TRL's generalized JSD; imported here, so that the other kinds do not pay for the import."""
    from trl.experimental.gkd import GKDTrainer

    return GKDTrainer.generalized_jsd_loss


def _loss(kind: str) -> Loss:
    losses = {"reverse_kl": reverse_kl_loss, "adakd": adakd_loss}
    if kind == "trl_gkd":
        return trl_gkd_loss()
    if kind not in losses:
        raise ValueError(f"kind {kind!r}: this contender has {[*losses, 'trl_gkd']}")
    return losses[kind]


def _model(config: dict[str, object], dtype: torch.dtype, device: str) -> torch.nn.Module:
    """A randomly initialised model; transformers draws from normal(0, initializer_range)."""
    words = dict(config)
    shape = AutoConfig.for_model(words.pop("model_type"), **words)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(shape, attn_implementation="sdpa", dtype=dtype)


def _student(setting: Setting, dtype: torch.dtype) -> torch.nn.Module:
    """The student: float32, or adapters of float32 on weights of `dtype`."""
    if setting.lora is None:
        return _model(setting.student, torch.float32, setting.device).train()
    from peft import LoraConfig, get_peft_model

    base = _model(setting.student, dtype, setting.device)
    return get_peft_model(base, LoraConfig(**setting.lora)).train()


def make_step(
    kind: str, batches: list[Batch], setting: Setting | None = None
) -> Callable[[Batch], float]:
    """One training step as a function of a batch; `kind` is a loss, then perhaps `compile`."""
    loss_name, _, how = kind.partition(" ")
    setting = setting or cases.smollm2()
    device, dtype = setting.device, getattr(torch, setting.dtype)
    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    loss_of = _loss(loss_name)
    teacher = _model(setting.teacher, dtype, device).eval().requires_grad_(False)
    student = _student(setting, dtype)
    trained = [weight for weight in student.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=cases.LEARNING_RATE, weight_decay=0.01, fused=device == "cuda"
    )
    mixed = torch.autocast(device, dtype, enabled=dtype != torch.float32)

    def forward_loss(inputs: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        with mixed:
            with torch.no_grad():
                teacher_logits = teacher(**inputs, use_cache=False).logits
            student_logits = student(**inputs, use_cache=False).logits
        return loss_of(student_logits.float(), teacher_logits.float(), labels)

    run = torch.compile(forward_loss) if how == "compile" else forward_loss

    def step(batch: Batch) -> float:
        inputs = {
            "input_ids": torch.from_numpy(batch.tokens).long().to(device),
            "attention_mask": torch.from_numpy(batch.segments > 0).long().to(device),
        }
        loss = run(inputs, torch.from_numpy(batch.labels).long().to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def rest() -> None:
    """Between turns: gives back the memory that nothing is in."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_bytes() -> int | None:
    """The most that this process has held on a GPU; None without one."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
