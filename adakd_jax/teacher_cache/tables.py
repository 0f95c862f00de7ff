"""What a cache loses, as tables."""

from rich.table import Table

from adakd_jax.teacher_cache.measure import TAILS
from adakd_jax.teacher_cache.verify import CutError, Lost, RuleError

_CUTS = {
    "student_tail": "mass outside, student",
    "teacher_tail": "mass outside, teacher",
    "forward_kl": "forward KL lost, nats",
    "reverse_kl": "reverse KL lost, nats",
    "temperature": "IDTS: mean |Δτ|",
}
_IN_PERCENT = ("student_tail", "teacher_tail")


def tables(lost: Lost) -> list[Table]:
    """One on what is cut and the settings' own loss, one on scores, one on divergences."""
    ks = list(lost.cuts)
    first = _table(
        f"what is lost, {lost.tokens:,} response tokens", ["", *(f"k = {k}" for k in ks)]
    )
    for field, title in _CUTS.items():
        first.add_row(title, *(_shown(lost.cuts[k], field) for k in ks))
    for tail in TAILS:
        for what, title in (
            ("loss", f"loss of these settings, {tail}, off by"),
            ("gradient", "    its gradient, off by"),
        ):
            errors = [getattr(lost.cuts[k], what)[tail] for k in ks]
            first.add_row(title, *(f"{error:.1%}" for error in errors))
    first.add_row("forward KL, whole", *[f"{lost.divergences['forward_kl'].whole:.4f}"] * len(ks))
    first.add_row("reverse KL, whole", *[f"{lost.divergences['reverse_kl'].whole:.4f}"] * len(ks))
    both = [f"{what}, k = {k}" for what in ("error", "same half") for k in ks]
    scores = _table("scores: mean error, and the hardest half that stays", ["", "mean", *both])
    for name, rule in lost.scores.items():
        scores.add_row(name, f"{rule.whole:.4f}", *_errors(rule), *_overlaps(rule))
    divergences = _table(
        "divergences at temperature 1: mean error", ["", "mean", *(f"k = {k}" for k in ks)]
    )
    for name, rule in lost.divergences.items():
        divergences.add_row(name, f"{rule.whole:.4f}", *_errors(rule))
    return [first, scores, divergences]


def _table(title: str, columns: list[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    return table


def _shown(cut: CutError, field: str) -> str:
    value = getattr(cut, field)
    return f"{value:.2%}" if field in _IN_PERCENT else f"{value:.5f}"


def _errors(rule: RuleError) -> list[str]:
    return [f"{error:.2%}" for error in rule.error.values()]


def _overlaps(rule: RuleError) -> list[str]:
    return [f"{share:.1%}" for share in rule.overlap.values()]
