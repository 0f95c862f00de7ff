"""What a study resolves, in words."""

from adakd_jax.studies.comparison import Difference, MethodSummary
from adakd_jax.studies.findings import finding_lines


def summary(method, verdict, by_seed, against="RKD"):
    value = sum(by_seed) / len(by_seed)
    gap = Difference(value, value - 0.1, value + 0.1, by_seed, verdict)
    return MethodSummary(method, against, {}, {}, {"forward_kl": gap})


def test_findings_are_sorted_by_verdict_and_size():
    summaries = [
        MethodSummary("RKD", "RKD", {}, {}, {}),
        summary("A", "better", (-0.1, -0.2)),
        summary("B", "unresolved", (0.5,)),
        summary("C", "better", (-0.4, -0.4), against="A"),
        summary("D", "worse", (0.25, 0.35)),
    ]
    assert list(finding_lines(summaries, "RKD")) == [
        "- **forward KL**, lower is better",
        "    - better: C (than A) -0.400 ± 0.000, A -0.150 ± 0.050",
        "    - worse: D +0.300 ± 0.050",
        "    - unresolved: B +0.500, one seed",
    ]
    assert list(finding_lines(summaries[:1], "RKD")) == []
