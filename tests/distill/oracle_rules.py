"""Scores and divergences of one token, in float64 NumPy, written from their definitions.

A function takes log-probabilities: of the student q, then of the teacher p.
"""

import math

import numpy as np
from scipy.special import digamma

STEP = 1e-5


def log_softmax(logits, tau=1.0):
    scaled = np.asarray(logits, np.float64) / tau
    shifted = scaled - scaled.max()
    return shifted - math.log(np.exp(shifted).sum())


def kl(log_a, log_b):
    return float(sum(math.exp(a) * (a - b) for a, b in zip(log_a, log_b, strict=True)))


def mixture(log_p, log_q, share):
    """Of the student's share; log-space, so that nothing underflows."""
    if share in (0.0, 1.0):
        return log_q if share else log_p
    return np.logaddexp(math.log(1 - share) + log_p, math.log(share) + log_q)


def forward_kl(log_q, log_p, at):
    return kl(log_p, log_q)


def reverse_kl(log_q, log_p, at):
    return kl(log_q, log_p)


def symmetric_kl(log_q, log_p, at):
    return kl(log_p, log_q) + kl(log_q, log_p)


def jsd(log_q, log_p, at, lam=0.9):
    middle = mixture(log_p, log_q, lam)
    return (1 - lam) * kl(log_p, middle) + lam * kl(log_q, middle)


def tvd(log_q, log_p, at):
    return 0.5 * float(np.abs(np.exp(log_p) - np.exp(log_q)).sum())


def skew_forward_kl(log_q, log_p, at, alpha=0.1):
    return kl(log_p, mixture(log_p, log_q, 1 - alpha))


def skew_reverse_kl(log_q, log_p, at, alpha=0.1):
    return kl(log_q, mixture(log_p, log_q, alpha))


def squared_hellinger(log_q, log_p, at=None):
    return 0.5 * float(np.sum((np.exp(log_p / 2) - np.exp(log_q / 2)) ** 2))


def adaptive_kl(log_q, log_p, at, mu=0.5):
    gap, cumulative, head = np.abs(np.exp(log_p) - np.exp(at)), 0.0, set()
    for index in sorted(range(len(log_p)), key=lambda v: (-log_p[v], v)):
        cumulative += math.exp(log_p[index])
        if head and cumulative > mu + 1e-6:
            break
        head.add(index)
    of_head = sum(gap[v] for v in head)
    if gap.sum() == 0.0:
        return 0.0
    share = of_head / gap.sum()
    return share * kl(log_p, log_q) + (1 - share) * kl(log_q, log_p)


def alpha_beta(log_q, log_p, at, alpha=0.2, beta=0.7):
    power = lambda log, exponent: np.exp(exponent * log)  # noqa: E731
    if alpha == beta == 0:
        return 0.5 * float(np.sum((log_p - log_q) ** 2))
    if alpha + beta == 0:
        ratio = alpha * (log_q - log_p)
        return float(np.sum(ratio + np.exp(-ratio) - 1)) / alpha**2
    if alpha == 0:
        q, p = power(log_q, beta), power(log_p, beta)
        return float(np.sum(q * beta * (log_q - log_p) - q + p)) / beta**2
    if beta == 0:
        q, p = power(log_q, alpha), power(log_p, alpha)
        return float(np.sum(p * alpha * (log_p - log_q) - p + q)) / alpha**2
    total = alpha + beta
    inner = power(log_p, alpha) * power(log_q, beta)
    inner = inner - alpha / total * power(log_p, total) - beta / total * power(log_q, total)
    return -float(inner.sum()) / (alpha * beta)


def todi(log_q, log_p, at):
    share = 1.0 / (1.0 + np.exp(at - log_p))
    q, p = np.exp(log_q), np.exp(log_p)
    return float(np.sum((share * p - (1 - share) * q) * (log_p - log_q)))


def gkd_jsd(log_q, log_p, at, beta=0.5):
    if beta in (0.0, 1.0):
        return kl(log_q, log_p) if beta else kl(log_p, log_q)
    middle = np.logaddexp(math.log(beta) + log_p, math.log(1 - beta) + log_q)
    return beta * kl(log_p, middle) + (1 - beta) * kl(log_q, middle)


# `at` are the student's log-probabilities that constants (what has no gradient) are made of.
DIVERGENCES = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "symmetric_kl": symmetric_kl,
    "jsd": jsd,
    "tvd": tvd,
    "skew_forward_kl": skew_forward_kl,
    "skew_reverse_kl": skew_reverse_kl,
    "hellinger": squared_hellinger,
    "adaptive_kl": adaptive_kl,
    "alpha_beta": alpha_beta,
    "todi": todi,
    "gkd_jsd": gkd_jsd,
}


def differentiated(function, z):
    """Central differences of a function of one row of logits."""
    z = np.asarray(z, np.float64)
    out = np.zeros(z.shape)
    for v in range(z.size):
        moved = np.zeros(z.shape)
        moved[v] = STEP
        out[v] = (function(z + moved) - function(z - moved)) / (2 * STEP)
    return out


def value_and_gradient(name, student, teacher, **options):
    """A divergence of one token and its gradient, with respect to the student's logits."""
    log_p, at = log_softmax(teacher), log_softmax(student)

    def value(z):
        return DIVERGENCES[name](log_softmax(z), log_p, at, **options)

    return value(student), differentiated(value, student)


def entropy(log):
    return -float(np.sum(np.exp(log) * log))


def largest(values, k):
    """Places of the k largest, ties to the lower one."""
    return sorted(range(len(values)), key=lambda v: (-values[v], v))[:k]


def logtoku(log_q, k):
    """[AU, EU]."""
    evidence = log_q[largest(log_q, k)]
    evidence = evidence - evidence.min() + 1e-8
    total = evidence.sum()
    spread = digamma(evidence + 1) - digamma(total + 1)
    return -float(np.sum(evidence / total * spread)), len(evidence) / (total + len(evidence))


def nmtkd(log_q, log_p, k):
    q, p = np.exp(log_q), np.exp(log_p)
    of_teacher, of_student = largest(log_p, k), largest(log_q, k)
    top = of_teacher[0]
    out = sum(max(q[u] - q[top], 0.0) for u in of_teacher)
    for u in of_teacher:
        out += sum(max(q[v] - q[u], 0.0) for v in of_student if p[u] > p[v])
    return out


# Of student, teacher and label.
SCORES = {
    "hellinger": lambda q, p, y: math.sqrt(squared_hellinger(q, p)),
    "forward_kl": lambda q, p, y: kl(p, q),
    "reverse_kl": lambda q, p, y: kl(q, p),
    "jsd": lambda q, p, y: jsd(q, p, q, 0.5),
    "bhattacharyya": lambda q, p, y: -math.log(np.sum(np.exp((q + p) / 2))),
    "student_confidence": lambda q, p, y: 1 - math.exp(q.max()),
    "student_entropy": lambda q, p, y: entropy(q),
    "teacher_entropy": lambda q, p, y: entropy(p),
    "cross_entropy": lambda q, p, y: -q[y],
    "ce_entropy": lambda q, p, y: -q[y] * entropy(q),
    "sensitivity": lambda q, p, y: max(kl(q, p), 1e-8) / max(entropy(q), 1e-8),
    "label_gap": lambda q, p, y: (1 - math.exp(p[y])) * -q[y],
    "uniform": lambda q, p, y: 1.0,
}
IGNORE = -100


def scores(rule, student, teacher, labels, k=10):
    """Of each response token, 0 elsewhere."""
    places = [i for i in np.ndindex(labels.shape) if labels[i] != IGNORE]
    logs = [(log_softmax(student[i]), log_softmax(teacher[i])) for i in places]
    if rule == "logtoku":
        numbers = np.array([logtoku(q, k) for q, _ in logs]).reshape(-1, 2)
        low, width = numbers.min(0, initial=np.inf), np.ptp(numbers, axis=0) if places else 0
        scaled = np.where(width > 0, (numbers - low) / np.where(width > 0, width, 1), 0.0)
        found = scaled.prod(-1)
    elif rule == "nmtkd":
        found = [nmtkd(q, p, k) for q, p in logs]
    else:
        found = [SCORES[rule](q, p, labels[i]) for i, (q, p) in zip(places, logs, strict=True)]
    out = np.zeros(labels.shape)
    for place, value in zip(places, found, strict=True):
        out[place] = value
    return out


def ranks(values, mask):
    """rank/(n−1) among the tokens that count, ties by index; 0 elsewhere."""
    flat, out = np.asarray(values).reshape(-1), np.zeros(np.size(values))
    places = sorted(np.flatnonzero(np.asarray(mask).reshape(-1)), key=lambda i: (flat[i], i))
    for rank, place in enumerate(places):
        out[place] = rank / max(len(places) - 1, 1)
    return out.reshape(np.shape(values))
