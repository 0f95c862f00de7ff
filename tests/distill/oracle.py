"""The loss in float64 NumPy, one token at a time, written without looking for speed."""

import math

import numpy as np

from tests.distill import oracle_rules as rules

IGNORE = -100


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


def moving(start, end, shape, progress):
    if end is None:
        return start
    if shape == "cosine":
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
    return start + (end - start) * progress


def weights(config, difficulty, u, mask, ratio, progress):
    """w of slot 2."""
    focus, kind = config.focus, config.focus.kind
    if kind == "curriculum":
        raw = np.where(mask, (1 - progress) * (1 - u) + progress * u, 0.0)
        mean = raw.sum() / max(1, mask.sum())
        return raw / mean if mean > 0 else mask.astype(float)
    if kind == "all" or config.score.kind == "uniform":
        return mask.astype(float)
    if kind == "top_ratio":
        ratio = focus.ratio
    elif kind in ("linear", "cosine"):
        ratio = moving(focus.start, focus.end, kind, progress)
    return select(difficulty, mask, ratio).astype(float)


def assigned_temperature(config, difficulty, u, selected):
    """τ of slot 3, as far as it does not depend on logits."""
    setting = config.temperature
    if setting.kind == "idts":
        options = setting.base, setting.strength, setting.inverse
        if setting.median == "row":
            rows = zip(difficulty, selected, strict=True)
            return np.stack([idts(*row, *options) for row in rows])
        return idts(difficulty, selected, *options)
    if setting.kind == "entropy":
        return setting.min + (setting.max - setting.min) * (1 - u if setting.inverse else u)
    return np.full(difficulty.shape, getattr(setting, "base", 1.0))


def temperatures(config, tau, student, teacher, at):
    """(τ_student, τ_teacher, factor) of one token; `at` is the student without gradient."""
    setting, squared = config.temperature, config.scale_by_squared_temperature
    if setting.kind == "dtkd":
        high = [np.max(z - np.mean(z)) for z in (at, teacher)]
        pair = [2 * h / sum(high) for h in high]
        return (*pair, pair[0] * pair[1] if squared else 1.0)
    if setting.kind == "logit_standardization":
        pair = [tau * (np.std(z) + 1e-7) for z in (student, teacher)]
        return (*pair, tau**2 if squared else 1.0)
    return tau, tau, tau**2 if squared else 1.0


def distance(config, tau, student, teacher, at):
    """factor · D(p^τ, q^τ) of one token, as a function of the student's logits."""
    at_student, at_teacher, factor = temperatures(config, tau, student, teacher, at)
    own = temperatures(config, tau, at, teacher, at)[0]
    options = config.divergence.model_dump(exclude={"kind"})
    return factor * rules.DIVERGENCES[config.divergence.kind](
        rules.log_softmax(student, at_student),
        rules.log_softmax(teacher, at_teacher),
        rules.log_softmax(at, own),
        **options,
    )


def through_temperature(config, weight, u, student, teacher, labels):
    """Gradient of Σ w·factor·D where τ moves with the logits of all tokens; w does not."""

    def value(flat):
        z = flat.reshape(student.shape)
        difficulty = rules.scores(config.score.kind, z, teacher, labels)
        tau = assigned_temperature(config, difficulty, u, weight > 0)
        kept = zip(*np.nonzero(weight), strict=True)
        return sum(weight[i] * distance(config, tau[i], z[i], teacher[i], z[i]) for i in kept)

    return rules.differentiated(value, student.reshape(-1)).reshape(student.shape)


def numerators(config, student, teacher, labels, ratio, progress=0.5):
    """Sums of one micro-batch, their gradients and totals, and what led to them."""
    student, teacher = np.asarray(student, np.float64), np.asarray(teacher, np.float64)
    mask = labels != IGNORE
    difficulty = rules.scores(config.score.kind, student, teacher, labels)
    u = rules.ranks(rules.scores("teacher_entropy", student, teacher, labels), mask)
    weight = weights(config, difficulty, u, mask, ratio, progress)
    tau = assigned_temperature(config, difficulty, u, weight > 0)
    reported = tau.copy()
    out = {"kd": 0.0, "ce": 0.0, "all_tokens": 0.0, "forward_kl": 0.0, "reverse_kl": 0.0}
    kd_gradient, ce_gradient = np.zeros(student.shape), np.zeros(student.shape)
    base, options = getattr(config.temperature, "base", 1.0), config.divergence.model_dump()
    options.pop("kind")
    for i in zip(*np.nonzero(mask), strict=True):
        z, other = student[i], teacher[i]
        log_q, log_p = rules.log_softmax(z), rules.log_softmax(other)
        out["ce"] -= log_q[labels[i]]
        out["forward_kl"] += rules.kl(log_p, log_q)
        out["reverse_kl"] += rules.kl(log_q, log_p)
        at_base = rules.log_softmax(z, base), rules.log_softmax(other, base)
        out["all_tokens"] += rules.DIVERGENCES[config.divergence.kind](
            *at_base, at_base[0], **options
        )
        ce_gradient[i] = np.exp(log_q) - np.eye(z.size)[labels[i]]
        if weight[i] > 0:
            value = lambda x, i=i, z=z, t=other: distance(config, tau[i], x, t, z)  # noqa: E731
            out["kd"] += weight[i] * value(z)
            kd_gradient[i] = weight[i] * rules.differentiated(value, z)
            reported[i] = temperatures(config, tau[i], z, other, z)[0]
    if getattr(config.temperature, "differentiable", False):
        kd_gradient = through_temperature(config, weight, u, student, teacher, labels)
    return out | {
        "kd_gradient": kd_gradient,
        "ce_gradient": ce_gradient,
        "kd_tokens": float(weight.sum()),
        "ce_tokens": int(mask.sum()),
        "scores": difficulty,
        "selected": weight > 0,
        "temperature": reported,
    }


def loss(config, student, teacher, labels, ratio, progress=0.5):
    """Value and gradient of one step; arrays have a leading axis of micro-batches."""
    parts = [
        numerators(config, *micro, ratio, progress)
        for micro in zip(student, teacher, labels, strict=True)
    ]
    shape = config.weight_schedule
    kd_weight = moving(config.kd_weight, config.kd_weight_end, shape, progress)
    ce_weight = moving(config.ce_weight, config.ce_weight_end, shape, progress)
    kd_tokens = max(1, sum(p["kd_tokens"] for p in parts))
    ce_tokens = max(1, sum(p["ce_tokens"] for p in parts))
    value = kd_weight * sum(p["kd"] for p in parts) / kd_tokens
    value += ce_weight * sum(p["ce"] for p in parts) / ce_tokens
    gradient = np.stack(
        [
            kd_weight * p["kd_gradient"] / kd_tokens + ce_weight * p["ce_gradient"] / ce_tokens
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
