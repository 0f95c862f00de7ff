"""Tables of the measurements, as Markdown."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.contenders import product
from benchmarks.flops import Method, large_loss_ratio, overhead
from benchmarks.generation import generation_table
from benchmarks.plot import plot_sweep
from benchmarks.results import Results, Row
from benchmarks.suite import (
    CHUNK_POINTS,
    CONTENDERS,
    LARGE,
    LARGE_METHODS,
    LARGE_PLAIN,
    PRODUCT,
    REFERENCE,
    ROOT,
    SWEEP,
)

MARKS = "<!-- benchmarks: start -->", "<!-- benchmarks: end -->"
README = ROOT / "README.md"
DOLLY_SHARE = 82 / 156  # response tokens of an Alpaca-formatted Dolly row, on average


def write_report(results: Results, output: Path) -> list[Path]:
    """Write table.md and loss.png into `output`, and the table into the README between its
    marks.
    """
    text = "\n".join(_tables(results))
    output.mkdir(parents=True, exist_ok=True)
    table = output / "table.md"
    table.write_text(text)
    written = [table, *plot_sweep(results, output / "loss.png")]
    readme = README.read_text()
    if all(mark in readme for mark in MARKS):
        before, _, rest = readme.partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        README.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}")
        written.append(README)
    return written


def _tables(results: Results) -> Iterator[str]:
    for case, title in results.cases():
        if case in (SWEEP.name, LARGE.name) or case.startswith("generate-"):
            continue
        yield from _case_table(results, case, title)
        yield ""
    yield from _chunk_table(results)
    yield from generation_table(results)
    yield from _overhead_table(results)


def _case_table(results: Results, case: str, title: str) -> Iterator[str]:
    machine = results.row(case, PRODUCT.name)
    reference = results.row(case, REFERENCE.name)
    peak = None if machine is None else product.OPERATIONS / machine.seconds
    measured = f", {peak / 1e9:.0f} GFLOP/s measured peak" if peak else ""
    yield f"**{title}**{measured}"
    yield ""
    yield (
        "| | seconds a step | against tunix | peak GiB | TFLOP floor | share of peak "
        "| response tokens/s |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for contender in CONTENDERS:
        row = results.row(case, contender.name)
        if row is not None:
            yield _line(contender.title, row, reference, peak)


def _line(title: str, row: Row, reference: Row | None, peak: float | None) -> str:
    rate = row.response_tokens / row.seconds
    against = "–"
    if reference is not None:
        against = f"{row.seconds / reference.seconds:.2f}×"
        if row.response_tokens != reference.response_tokens:
            against = f"{rate * reference.seconds / reference.response_tokens:.1f}× the tokens/s"
    share = "–" if peak is None else f"{row.operations / row.seconds / peak:.0%}"
    return (
        f"| {title} | {row.seconds:.2f} | {against} | {row.peak_gib:.1f} "
        f"| {row.operations / 1e12:.2f} | {share} | {rate:.0f} |"
    )


def _chunk_table(results: Results) -> Iterator[str]:
    """What the chunk size is worth on this machine."""
    rows = [(p, results.row(SWEEP.name, p.contender.name)) for p in CHUNK_POINTS]
    known = [(point, row) for point, row in rows if row is not None]
    if not known:
        return
    first = known[0][0]
    yield f"**The loss alone by chunk size, {first.tokens} tokens, V = {first.vocabulary:,}**"
    yield ""
    yield "| tokens a chunk | " + " | ".join(str(point.chunk_size) for point, _ in known) + " |"
    yield "|---|" + "--:|" * len(known)
    yield "| seconds | " + " | ".join(f"{row.seconds:.2f}" for _, row in known) + " |"
    yield "| peak GiB | " + " | ".join(f"{row.peak_gib:.2f}" for _, row in known) + " |"
    yield ""


def _overhead_table(results: Results) -> Iterator[str]:
    """What ranking costs a pair of 7B and 1.5B: counted, and as the loss alone was measured."""
    shares = f"full rows | {DOLLY_SHARE:.0%} response tokens (Dolly)"
    yield "**Qwen2-7B → 1.5B against plain distillation: the loss alone, and the whole step**"
    yield ""
    yield f"| | loss, counted | loss, measured | step, counted: {shares} | step, as measured |"
    yield "|---|--:|--:|--:|--:|--:|"
    plain = results.row(LARGE.name, LARGE_PLAIN.name)
    for contender, (title, method) in LARGE_METHODS.items():
        row = results.row(LARGE.name, contender.name)
        yield _overhead_line(title, method, plain, row)


def _overhead_line(title: str, method: Method, plain: Row | None, row: Row | None) -> str:
    counted = large_loss_ratio(method)
    cells = [f"{counted:.2f}×", "–", *(f"{overhead(counted, s):+.1%}" for s in (1.0, DOLLY_SHARE))]
    cells.append("–")
    if plain is not None and row is not None:
        measured = row.seconds / plain.seconds
        cells[1], cells[-1] = f"{measured:.2f}×", f"{overhead(measured, 1.0):+.1%}"
    return f"| {title} | " + " | ".join(cells) + " |"
