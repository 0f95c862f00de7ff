"""Teachers and rows that nothing can be learned from."""

import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adakd_jax.axes import IGNORE
from adakd_jax.console import Console
from adakd_jax.hf.export import save_pretrained
from benchmarks.faults.observation import Observation, first_of, line_with, refused
from benchmarks.faults.workplace import Training, Workplace, tiny_teacher


def broken_teacher(place: Workplace) -> Observation:
    """A teacher with one NaN."""
    teacher, path = tiny_teacher(), place.folder / "broken_teacher"
    leaves, tree = jax.tree.flatten(teacher.params)
    leaves[0] = leaves[0].at[0, 0].set(jnp.nan)
    broken = teacher.__class__(
        teacher.config,
        teacher.graphdef,
        jax.tree.unflatten(tree, leaves),
        teacher.tokenizer,
        teacher.source,
    )
    save_pretrained(broken, path)
    training = place.finish(place.settings(place.fresh("nan"), teacher={"path": str(path)}))
    line, problem = refused(training, "the teacher", "NaN or infinite")
    return Observation(
        fault="teacher with a NaN weight",
        how="one number of the embedding",
        promise="refused before data and compilation; names teacher and parameter",
        code=training.code,
        message=line,
        problem=first_of(
            problem,
            None if str(path) in line else "the teacher is not named",
            "went on to the data" if "data     " in training.shown else None,
        ),
    )


def empty_data(place: Workplace) -> Observation:
    """A file without a row."""
    training = _on_rows(place, "empty", [])
    line, problem = refused(training, "empty.jsonl is empty")
    return Observation(
        fault="empty data set",
        how="",
        promise="refused, named",
        code=training.code,
        message=line,
        problem=problem,
    )


def only_prompts(place: Workplace) -> Observation:
    """Prompts of which the template's own words are all that a row may hold."""
    rows = [{"instruction": "Say it. " * 40, "output": "No."} for _ in range(8)]
    changes = {"max_length": 12, "max_prompt_length": 8}
    training = _on_rows(place, "only_prompts", rows, changes)
    line, problem = refused(training, "no row of only_prompts.jsonl gives an example")
    reason = line_with(training, "dropped: ")
    return Observation(
        fault="rows that are all prompt: no room for more than the template",
        how="",
        promise="refused, with the reason",
        code=training.code,
        message=f"{line} {reason.strip()}",
        problem=first_of(problem, None if reason else "no reason is given"),
    )


def no_answers(place: Workplace) -> Observation:
    """Rows whose answer is empty."""
    rows = [{"instruction": f"Say it {n} times.", "output": ""} for n in range(8)]
    training = _on_rows(place, "no_answers", rows)
    line, problem = refused(training, "no row of no_answers.jsonl can be used")
    first = line_with(training, "no_answers.jsonl:1:")
    return Observation(
        fault="rows that are all prompt: empty answers",
        how="",
        promise="refused, each with file, line and reason",
        code=training.code,
        message=f"{line} {first.strip()}",
        problem=first_of(problem, None if first else "no line is named"),
    )


def one_token(place: Workplace) -> Observation:
    """Texts of a single token: all there is to learn is that they end."""
    rows = [{"text": "a"} for _ in range(16)]
    training = _on_rows(place, "one_token", rows, {"template": "text"})
    losses = _losses(training.run_dir)
    finite = len(losses) == place.steps and all(map(math.isfinite, losses))
    return Observation(
        fault="one-token rows",
        how="plain text of one token",
        promise="trains: the end of the text is learned; every loss finite",
        code=training.code,
        message=line_with(training, "tokens each").strip(),
        problem=first_of(
            None if training.code == 0 else f"exit code {training.code}",
            None if finite else f"losses {losses}",
            None if losses[-1:] < losses[:1] else "nothing was learned",
        ),
    )


def no_response(place: Workplace) -> Observation:
    """A step without a response token, which no data gives: labels are taken away by hand."""
    before, after, metrics = _step_without_labels(place)
    same = all(
        np.array_equal(one, other)
        for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    )
    return Observation(
        fault="a batch with no response token",
        how="labels taken from a batch; in process",
        promise="skipped: weights as they were; counted, not as a bad step",
        code=None,
        message=f"accepted {metrics['accepted']:.0f}, skipped {metrics['skipped_steps']:.0f}, "
        f"bad in a row {metrics['bad_streak']:.0f}, loss {metrics['loss']:.4f}",
        problem=first_of(
            None if same else "weights changed",
            None if metrics["skipped_steps"] == 1 else "not counted as skipped",
            "counted as bad" if metrics["bad_streak"] else None,
            None if math.isfinite(metrics["loss"]) else "the loss is not finite",
        ),
    )


def _step_without_labels(place: Workplace) -> tuple[Any, Any, dict[str, float]]:
    from adakd_jax.training.prepare import prepare
    from adakd_jax.training.run import compiled_step
    from adakd_jax.training.start import first_state

    quiet = Console(quiet=True)
    run = prepare(place.settings(place.fresh("no_response")), quiet)
    parts = run.parts()
    state = first_state(run, parts)
    before = jax.tree.map(np.asarray, state.params)
    step = compiled_step(run, parts, state, quiet)
    batch = run.batches.batch(0)
    unlabelled = batch._replace(labels=np.full_like(batch.labels, IGNORE))
    state, metrics = step(state, run.teaching_params, unlabelled)
    return before, state.params, {name: float(value) for name, value in metrics.items()}


def _on_rows(
    place: Workplace, name: str, rows: list[dict[str, str]], changes: dict[str, Any] | None = None
) -> Training:
    file = place.write_rows(place.folder / f"{name}.jsonl", rows)
    data = {"train": {"kind": "file", "path": str(file)}} | (changes or {})
    return place.finish(place.settings(place.fresh(name), data=data))


def _losses(run_dir: Path) -> list[float]:
    file = run_dir / "metrics.jsonl"
    if not file.exists():
        return []
    records = [json.loads(line) for line in file.read_text().splitlines()]
    return [record["loss"] for record in records if record["kind"] == "train"]
