"""What a run shows while it trains: a live bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Mapping
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from adakd_jax.console import Console, progress_text

LINE_SECONDS = 10.0


class TrainingDisplay:
    """Progress of the train loop: loss, KL, kept ratio r, τ range, throughput and time left."""

    def __init__(self, console: Console, total_steps: int, start_step: int):
        self._console = console
        self._total, self._start = total_steps, start_step
        self._began = self._last_line = time.monotonic()
        self._bar = Progress(
            progress_text("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            progress_text("{task.fields[status]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("train", total=total_steps, completed=start_step, status="")

    def __enter__(self) -> "TrainingDisplay":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show the metrics of `step` (1 is the first)."""
        status = status_line(metrics)
        self._bar.update(self._task, completed=step, status=status)
        now = time.monotonic()
        due = now - self._last_line >= LINE_SECONDS or step in (self._start + 1, self._total)
        if not self._console.is_terminal and due:
            self._last_line = now
            left = (now - self._began) / (step - self._start) * (self._total - step)
            self._console.print(
                f"step {step}/{self._total}  {status}  {duration(left)} left", soft_wrap=True
            )

    def note(self, message: str) -> None:
        """Print a line above the bar."""
        self._console.print(message)


def status_line(metrics: Mapping[str, float]) -> str:
    """The metrics that people watch, in one line."""
    parts = [f"loss {metrics['loss']:.4f}"]
    if "reverse_kl" in metrics:
        parts.append(f"KL {metrics['reverse_kl']:.3f}")
    if "keep_ratio" in metrics:
        parts.append(f"r {metrics['keep_ratio']:.2f}")
        parts.append(f"τ {metrics['temperature_q10']:.2f}–{metrics['temperature_q90']:.2f}")
    parts += [
        f"{metrics['tokens_per_second']:,.0f} tok/s",
        f"{metrics['response_tokens_per_second']:,.0f} resp/s",
    ]
    if metrics["skipped_steps"]:
        parts.append(f"{metrics['skipped_steps']:.0f} skipped")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
