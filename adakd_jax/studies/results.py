"""What a finished run of a study leaves: one file, complete or absent."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from adakd_jax.config.provenance import OtherRunError, config_differences
from adakd_jax.config.run import RunConfig
from adakd_jax.eval.suite import Evaluation
from adakd_jax.studies.plan import PlannedRun
from adakd_jax.training.records import read_records
from adakd_jax.user_path import user_path
from adakd_jax.whole_file import write_whole

FILE = "result.json"
# What may differ between a result and the settings it is asked for with: it changes no number.
_FREE = (
    "run_dir",
    "data.cache_dir",
    "checkpoint.",
    "logging.",
    "export.",
    "evaluation.before",
    "evaluation.show_examples",
)
_COLUMNS = ("nll", "nll_teacher", "forward_kl", "reverse_kl", "top1_agreement")


@dataclasses.dataclass(frozen=True)
class RunResult:
    """One trained student, measured.

    Attributes:
        method: name in the study.
        seed: of the run.
        settings: the whole run configuration, as JSON values.
        data: content of the rows that were trained and measured on, as `Shared.data` names it.
        metrics: held-out means, as `Evaluation.metrics` gives them.
        documents: "tokens" and sums over them by metric, one number a held-out document.
        rouge_l: ROUGE-L F1 in [0, 1] of each answered prompt; empty if none was answered.
        answers: the answers in words.
        training: "steps", "seconds", "seconds_per_step"; "keep_ratio" at the end, if tokens were
            selected.
        evaluation_seconds: of measuring and answering.
        suites: "metrics", "documents" and "rouge_l" by name of other sets that were measured.
    """

    method: str
    seed: int
    settings: dict[str, Any]
    data: dict[str, Any]
    metrics: dict[str, float]
    documents: dict[str, list[float]]
    rouge_l: list[float]
    answers: list[dict[str, Any]]
    training: dict[str, float]
    evaluation_seconds: float
    suites: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def on(self, suite: str) -> "RunResult":
        """The same run as it was measured on another set."""
        return dataclasses.replace(self, answers=[], suites={}, **self.suites[suite])

    @property
    def seconds(self) -> float:
        """Of training and evaluation, compiling left out."""
        return self.training.get("seconds", 0.0) + self.evaluation_seconds


def result_of(
    run: PlannedRun,
    evaluation: Evaluation,
    data: Mapping[str, Any],
    evaluation_seconds: float,
    *,
    suites: Mapping[str, Evaluation] | None = None,
    trained: bool = True,
) -> RunResult:
    """Puts together what was measured after a run; `trained=False`: of the student before it."""
    return RunResult(
        method=run.method,
        seed=run.seed,
        settings=run.config.model_dump(mode="json"),
        data=dict(data),
        **_measured(evaluation),
        answers=evaluation.to_dict()["answers"],
        training=_training(run.config.run_dir) if trained else {},
        evaluation_seconds=evaluation_seconds,
        suites={name: _measured(each) for name, each in (suites or {}).items()},
    )


def _measured(evaluation: Evaluation) -> dict[str, Any]:
    """Metrics, sums by document, ROUGE-L by prompt."""
    measured = evaluation.documents
    assert measured is not None  # `evaluate` always gives them
    sums = dict(zip(_COLUMNS, measured.sums.T.tolist(), strict=True))
    return {
        "metrics": dict(evaluation.metrics()),
        "documents": {"tokens": measured.tokens.tolist(), **sums},
        "rouge_l": [answered.rouge_l for answered in evaluation.answers],
    }


def write_result(folder: str, result: RunResult, file: str = FILE) -> None:
    """Writes the result at once: a reader sees all of it or nothing."""
    text = json.dumps(dataclasses.asdict(result), indent=1, ensure_ascii=False)
    write_whole(user_path(folder) / file, text)


def read_result(
    folder: str, config: RunConfig, file: str = FILE, matters: tuple[str, ...] = ("",)
) -> RunResult | None:
    """The result in a folder; None if there is none yet.

    Args:
        folder: where it is.
        config: the settings it should have.
        file: its name.
        matters: see `check_settings`.

    Raises:
        OtherRunError: it is that of other settings; names what differs and what to remove.
    """
    path = user_path(folder) / file
    if not path.exists():
        return None
    result = RunResult(**json.loads(path.read_text(encoding="utf-8")))
    remove = folder if file == FILE else str(path)
    check_settings(result.settings, config, what=str(path), remove=remove, matters=matters)
    return result


def check_settings(
    stored: Mapping[str, Any],
    config: RunConfig,
    *,
    what: str,
    remove: str,
    matters: tuple[str, ...] = ("",),
) -> None:
    """Refuses a result of other settings.

    Args:
        stored: the settings it was measured with; those that are newer than it have their defaults.
        config: the settings of now.
        what: the file that holds it.
        remove: what to remove to measure again.
        matters: beginnings of the keys that matter; by default all that can change a number.

    Raises:
        OtherRunError: a setting differs that matters; all of them are listed.
    """
    try:
        before = RunConfig.model_validate(stored)
    except ValidationError:
        before = stored
    differences = [
        line
        for line in config_differences(before, config)
        if line.startswith(matters) and not line.startswith(_FREE)
    ]
    if differences:
        listed = "\n".join(f"  {line}" for line in differences)
        raise OtherRunError(
            f"{what} is a result with other settings (old -> new):\n{listed}\n"
            f"valid: the old values; or another --output; or remove {remove} to run it again"
        )


def check_suites(results: Sequence[RunResult], suites: Sequence[str]) -> None:
    """Refuses results that were not measured on sets that are asked for: their weights are gone.

    Raises:
        OtherRunError: names the run, and what is valid.
    """
    for result in results:
        missing = [name for name in suites if name not in result.suites]
        if missing:
            raise OtherRunError(
                f"{result.method}, seed {result.seed}: measured without {', '.join(missing)}; "
                f"valid: --suites {','.join(result.suites) or '()'}; or another --output; or "
                "remove its folder to run it again"
            )


def check_data(results: Sequence[RunResult], data: Mapping[str, Any]) -> None:
    """Refuses results of rows or models that have changed since, though their path has not. What an
    older version did not note is not compared.

    Raises:
        OtherRunError: names the run.
    """
    for result in results:
        changed = [
            f"{name}: {old} -> {data[name]}"
            for name, old in result.data.items()
            if name in data and old != data[name]
        ]
        if changed:
            raise OtherRunError(
                f"{result.method}, seed {result.seed}: rows or models were others then "
                f"({', '.join(changed)}); valid: the old ones; or another --output"
            )


def _training(run_dir: str) -> dict[str, float]:
    """What the training metrics of a run say about it as a whole."""
    records = [record for record in read_records(run_dir) if record["kind"] == "train"]
    if not records:  # `logging.every_steps` may be more than there are
        return {}
    steps = records[-1]["step"]
    seconds = [record["seconds"] for record in records]
    values = {
        "steps": steps,
        # Not every step has a record.
        "seconds": float(np.mean(seconds) * steps),
        "seconds_per_step": float(np.median(seconds)),
    }
    if records[-1].get("keep_ratio") is not None:
        values["keep_ratio"] = records[-1]["keep_ratio"]
    return values
