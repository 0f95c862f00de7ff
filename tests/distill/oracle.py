"""The method in float64 NumPy, one token at a time, written without looking for speed."""

import math

import numpy as np

IGNORE = -100


def log_softmax(logits, tau=1.0):
    scaled = np.asarray(logits, np.float64) / tau
    shifted = scaled - scaled.max()
    return shifted - math.log(np.exp(shifted).sum())


def forward_kl(log_q, log_p):
    return float(sum(math.exp(b) * (b - a) for a, b in zip(log_q, log_p, strict=True)))


def reverse_kl(log_q, log_p):
    return float(sum(math.exp(a) * (a - b) for a, b in zip(log_q, log_p, strict=True)))


def forward_kl_gradient(log_q, log_p):
    """With respect to the student's logits at τ = 1."""
    return np.exp(log_q) - np.exp(log_p)


def reverse_kl_gradient(log_q, log_p):
    q = np.exp(log_q)
    return q * (log_q - log_p - np.sum(q * (log_q - log_p)))


DIVERGENCES = {
    "forward_kl": (forward_kl, forward_kl_gradient),
    "reverse_kl": (reverse_kl, reverse_kl_gradient),
}


def hellinger(log_q, log_p, label):
    return math.sqrt(0.5 * np.sum((np.exp(0.5 * log_p) - np.exp(0.5 * log_q)) ** 2))


def uniform(log_q, log_p, label):
    return 1.0


SCORES = {"hellinger": hellinger, "uniform": uniform}


def scores(rule, student, teacher, labels):
    """Of each response token, 0 elsewhere."""
    out = np.zeros(labels.shape)
    for i in np.ndindex(labels.shape):
        if labels[i] != IGNORE:
            out[i] = SCORES[rule](log_softmax(student[i]), log_softmax(teacher[i]), labels[i])
    return out


def kept_count(tokens, ratio):
    return max(1, math.floor(float(np.float32(ratio)) * tokens + 1e-4)) if tokens else 0


def select(scores, mask, ratio):
    """The highest scores, ties to the lower flat index."""
    flat = np.asarray(scores).reshape(-1)
    candidates = np.flatnonzero(np.asarray(mask).reshape(-1))
    best = sorted(candidates, key=lambda i: (-flat[i], i))[: kept_count(len(candidates), ratio)]
    out = np.zeros(flat.size, bool)
    out[best] = True
    return out.reshape(np.shape(mask))


def idts(scores, selected, base=1.0, strength=0.5, inverse=True):
    """τ of selected tokens by the formula with tanh and log, base elsewhere."""
    tau = np.full(np.shape(scores), float(base))
    values = sorted(np.asarray(scores, np.float64)[selected])
    if not values:
        return tau
    median = values[(len(values) - 1) // 2]
    for i in zip(*np.nonzero(selected), strict=True):
        score = float(scores[i])
        if score == median:
            hardness = 0.0
        elif score == 0.0 or median == 0.0:
            hardness = -1.0 if score == 0.0 else 1.0
        else:
            hardness = math.tanh(math.log(score / median))
        tau[i] = base * math.exp((-strength if inverse else strength) * hardness)
    return tau


def keep_ratio(config, ratio):
    if config.score.kind == "uniform" or config.focus.kind == "all":
        return 1.0
    return config.focus.ratio if config.focus.kind == "top_ratio" else ratio


def numerators(config, student, teacher, labels, ratio):
    """Sums of one micro-batch, their gradients and token counts, and what led to them."""
    mask = labels != IGNORE
    difficulty = scores(config.score.kind, student, teacher, labels)
    selected = select(difficulty, mask, keep_ratio(config, ratio))
    setting = config.temperature
    tau = np.full(labels.shape, setting.base)
    if setting.kind == "idts":
        tau = idts(difficulty, selected, setting.base, setting.strength, setting.inverse)
    value, gradient = DIVERGENCES[config.divergence.kind]
    out = {"kd": 0.0, "ce": 0.0, "all_tokens": 0.0, "forward_kl": 0.0, "reverse_kl": 0.0}
    kd_gradient, ce_gradient = np.zeros(student.shape), np.zeros(student.shape)
    for i in zip(*np.nonzero(mask), strict=True):
        log_q, log_p = log_softmax(student[i]), log_softmax(teacher[i])
        out["ce"] -= log_q[labels[i]]
        out["forward_kl"] += forward_kl(log_q, log_p)
        out["reverse_kl"] += reverse_kl(log_q, log_p)
        out["all_tokens"] += value(
            log_softmax(student[i], setting.base), log_softmax(teacher[i], setting.base)
        )
        ce_gradient[i] = np.exp(log_q) - np.eye(student.shape[-1])[labels[i]]
        if selected[i]:
            at_tau = log_softmax(student[i], tau[i]), log_softmax(teacher[i], tau[i])
            factor = tau[i] ** 2 if config.scale_by_squared_temperature else 1.0
            out["kd"] += factor * value(*at_tau)
            kd_gradient[i] = factor * gradient(*at_tau) / tau[i]
    return out | {
        "kd_gradient": kd_gradient,
        "ce_gradient": ce_gradient,
        "kd_tokens": int(selected.sum()),
        "ce_tokens": int(mask.sum()),
        "scores": difficulty,
        "selected": selected,
        "temperature": tau,
    }


def loss(config, student, teacher, labels, ratio):
    """Value and gradient of one step; arrays have a leading axis of micro-batches."""
    parts = [
        numerators(config, *micro, ratio) for micro in zip(student, teacher, labels, strict=True)
    ]
    kd_tokens = max(1, sum(p["kd_tokens"] for p in parts))
    ce_tokens = max(1, sum(p["ce_tokens"] for p in parts))
    value = config.kd_weight * sum(p["kd"] for p in parts) / kd_tokens
    value += config.ce_weight * sum(p["ce"] for p in parts) / ce_tokens
    gradient = np.stack(
        [
            config.kd_weight * p["kd_gradient"] / kd_tokens
            + config.ce_weight * p["ce_gradient"] / ce_tokens
            for p in parts
        ]
    )
    return value, gradient, parts


def latf(losses, warmup, beta=0.99, tolerance=0.05, step=0.05, floor=0.1):
    """The ratio after each accepted step."""
    ratio, ema, reference, ratios = 1.0, 0.0, 0.0, []
    for t, value in enumerate(losses, start=1):
        ema = value if t == 1 else beta * ema + (1 - beta) * value
        if t == warmup:
            reference = ema
        elif t > warmup and ema < reference * (1 - tolerance):
            ratio, reference = max(ratio * (1 - step), floor), ema
        elif t > warmup and ema > reference * (1 + tolerance):
            ratio, reference = min(ratio * (1 + step), 1.0), ema
        ratios.append(ratio)
    return ratios
