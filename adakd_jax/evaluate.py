"""Measures models on held-out rows: `python -m adakd_jax.evaluate --model M --data FILE.jsonl`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from adakd_jax.config import Columns, FileSource, GenerationConfig
from adakd_jax.config.parse import parse
from adakd_jax.config.stage import Stage

if TYPE_CHECKING:
    from adakd_jax.data.row_source import RowSource
    from adakd_jax.hf.pretrained import Pretrained

PROG = "python -m adakd_jax.evaluate"


class EvaluateCommand(Stage):
    """What is measured, and on what."""

    model: str = Field(
        description="run folder, exported folder, hub id, .gguf file or 'package:NAME/FILE'"
    )
    data: str = Field(description="JSONL, JSON or Parquet file(s) of rows; glob patterns allowed")
    compare: str | None = Field(default=None, description="another model, shown side by side")
    teacher: str | None = Field(
        default=None, description="model to measure KLs and agreement against; same tokenizer"
    )
    step: str | None = Field(
        default=None,
        description="checkpoint of the run folder `model`: a step, 'latest' or 'best'; "
        "null: its export, else the latest",
    )
    template: Literal["alpaca", "chat", "text"] | None = Field(
        default=None, description="prompt format; null: that of the run folder, else alpaca"
    )
    max_length: PositiveInt | None = Field(
        default=None, description="tokens of a packed row; null: that of the run folder, else 512"
    )
    max_prompt_length: PositiveInt | None = Field(
        default=None, description="tokens of a prompt; null: that of the run folder, else 256"
    )
    max_examples: PositiveInt | None = Field(default=None, description="rows used; null: all")
    generate_examples: NonNegativeInt | None = Field(
        default=None, description="of those, prompts to answer for ROUGE-L; null: all; 0: none"
    )
    show_examples: NonNegativeInt = Field(default=3, description="answers printed")
    batch_rows: PositiveInt = Field(default=4, description="packed rows per forward pass")
    seed: NonNegativeInt = Field(default=0, description="of sampling and of the bootstrap")
    output: str | None = Field(
        default=None, description="local JSON file for all numbers and answers"
    )
    cache_dir: str = Field(
        default="~/.cache/adakd_jax/data", description="local folder of prepared data"
    )
    columns: Columns = Field(default=Columns(), description="column names of the rows")
    generation: GenerationConfig = Field(
        default=GenerationConfig(), description="how answers are sampled"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    config, _ = parse(
        EvaluateCommand,
        sys.argv[1:] if argv is None else argv,
        prog=PROG,
        description="Measures a model on held-out rows, against a teacher if one is given.",
        requires_config=False,
    )
    # Imported late: help and mistakes in flags do not wait for JAX.
    from adakd_jax.data.sources import open_rows
    from adakd_jax.eval.command import keep_compilations, user_errors
    from adakd_jax.eval.model import open_model

    keep_compilations()
    with user_errors(PROG):
        rows = open_rows(
            FileSource(path=config.data), columns=config.columns, cache_dir=config.cache_dir
        )
        teacher = None if config.teacher is None else open_model(config.teacher)
        results = {config.model: _measure(config, config.model, config.step, rows, teacher)}
        if config.compare is not None:
            results[config.compare] = _measure(config, config.compare, None, rows, teacher)
    _show(config, results)
    if config.output is not None:
        settings = config.model_dump(mode="json", exclude={"output"})
        _write(Path(config.output), {"settings": settings, "results": results})


def _measure(
    config: EvaluateCommand,
    name: str,
    step: str | None,
    rows: "RowSource",
    teacher: "Pretrained | None",
) -> dict[str, Any]:
    from adakd_jax.eval.model import open_model, prompt_settings
    from adakd_jax.eval.suite import evaluate, hold_ready
    from adakd_jax.hf.tokenizer import check_same_tokens

    model = open_model(name, step=step)
    if model.tokenizer is None:
        raise ValueError(f"{name} has no tokenizer")
    if teacher is not None:
        check_same_tokens(model, teacher)
    settings = prompt_settings(
        config.model, config.template, config.max_length, config.max_prompt_length
    )
    if settings.max_prompt_length >= settings.max_length:
        raise ValueError(
            f"max_prompt_length {settings.max_prompt_length} leaves no room for an answer in "
            f"max_length {settings.max_length}; valid: a smaller --max_prompt_length"
        )
    held_out = hold_ready(
        rows,
        model.tokenizer,
        **settings._asdict(),
        batch_rows=config.batch_rows,
        max_examples=config.max_examples,
        generate_examples=config.generate_examples,
        cache_dir=config.cache_dir,
    )
    for reason, count in held_out.left_out.items():
        print(f"{PROG}: {count} rows are not answered: {reason}", file=sys.stderr)
    evaluation = evaluate(model, held_out, config.generation, teacher=teacher, seed=config.seed)
    return evaluation.to_dict()


def _show(config: EvaluateCommand, results: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console

    from adakd_jax.eval.table import answers_table, metrics_table

    console = Console()
    console.print(metrics_table(results, title=config.data))
    # With another tokenizer, other rows may be left out: one prompt, not one index, goes together.
    answers = {
        name: {each["prompt"]: each["answer"] for each in result["answers"]}
        for name, result in results.items()
    }
    for answered in results[config.model]["answers"][: config.show_examples]:
        prompt = answered["prompt"]
        texts = {name: found.get(prompt, "–") for name, found in answers.items()}
        console.print(answers_table(prompt, {"reference": answered["references"][0], **texts}))


def _write(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(file)
    print(f"written: {file}")


if __name__ == "__main__":
    main()
