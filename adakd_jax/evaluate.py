"""Measures models on held-out rows: `python -m adakd_jax.evaluate --model M --suite dolly`."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from adakd_jax.config import Columns, GenerationConfig
from adakd_jax.config.parse import parse
from adakd_jax.config.stage import Check, Conflict, Stage
from adakd_jax.config.suites import SAMPLING, SEEDS, SuiteName

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from adakd_jax.eval.comparison import Compared
    from adakd_jax.eval.held_out_sets import HeldOutSet
    from adakd_jax.eval.measured import Measured
    from adakd_jax.eval.model import PromptSettings
    from adakd_jax.eval.suite import HeldOut
    from adakd_jax.hf.pretrained import Pretrained

PROG = "python -m adakd_jax.evaluate"


def _something_to_measure_on(suite: tuple[str, ...], data: str | None) -> Conflict | None:
    if suite or data is not None:
        return None
    return Conflict("give suite, data or both", "--suite dolly, or --data FILE.jsonl")


class EvaluateCommand(Stage):
    """What is measured, and on what."""

    checks: ClassVar[tuple[Check, ...]] = (Check(("suite", "data"), _something_to_measure_on),)

    model: str = Field(
        description="run folder, exported folder, hub id, .gguf file or 'package:NAME/FILE'"
    )
    suite: tuple[SuiteName, ...] = Field(
        default=(),
        description="named sets, comma separated; sampled as the papers do (temperature 1, top-p "
        "1, 256 tokens, five seeds) where `generation` and `seeds` do not say otherwise",
    )
    data: str | None = Field(
        default=None,
        description="JSONL, JSON or Parquet file(s), glob patterns allowed, or "
        "'hub:OWNER/NAME:FILES'; for several suites a folder with dolly.jsonl and so on; "
        "null: each suite from the hub",
    )
    compare: str | None = Field(
        default=None, description="another model, shown side by side and compared pair by pair"
    )
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
    max_examples: PositiveInt | None = Field(
        default=None, description="rows used of each set, the first ones; null: all"
    )
    generate_examples: NonNegativeInt | None = Field(
        default=None, description="of those, prompts to answer; null: all; 0: none"
    )
    show_examples: NonNegativeInt = Field(default=3, description="answers printed of each set")
    batch_rows: PositiveInt = Field(default=4, description="packed rows per forward pass")
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="of sampling, comma separated; null: 10,20,30,40,50 for suites, else 0",
    )
    resamples: PositiveInt = Field(
        default=10_000, description="bootstrap resamples of a comparison"
    )
    output: str | None = Field(
        default=None,
        description="local folder for numbers, tables and answers; sampled answers that it has "
        "are not sampled again",
    )
    cache_dir: str = Field(
        default="~/.cache/adakd_jax/data", description="local folder of prepared data"
    )
    columns: Columns = Field(default=Columns(), description="column names of the rows")
    generation: GenerationConfig = Field(
        default=GenerationConfig(), description="how answers are sampled"
    )

    def sampling(self) -> GenerationConfig:
        """How answers are sampled: as the papers do for suites, where nothing else is said."""
        if not self.suite:
            return self.generation
        unsaid = {k: v for k, v in SAMPLING.items() if k not in self.generation.model_fields_set}
        return self.generation.model_copy(update=unsaid)

    def sampling_seeds(self) -> tuple[int, ...]:
        """Of sampling."""
        return self.seeds or (SEEDS if self.suite else (0,))

    def told(self) -> dict[str, Any]:
        """The settings that an evaluation is told by, with what was left to the suite filled in."""
        settings = self.model_dump(mode="json", exclude={"output", "cache_dir", "show_examples"})
        sampling = self.sampling().model_dump(mode="json")
        return {**settings, "generation": sampling, "seeds": list(self.sampling_seeds())}


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
    from adakd_jax.eval.command import keep_compilations, user_errors
    from adakd_jax.eval.held_out_sets import open_sets
    from adakd_jax.eval.model import open_model

    keep_compilations()
    results: dict[str, dict[str, Measured]] = {}
    with user_errors(PROG):
        sets = open_sets(
            config.suite, config.data, columns=config.columns, cache_dir=config.cache_dir
        )
        teacher = None if config.teacher is None else open_model(config.teacher)
        for name in filter(None, (config.model, config.compare)):
            results[name] = {}
            for each, measured in _measure(config, name, sets, teacher):
                results[name][each.name] = measured
                _write(config, results, [])  # an interruption loses one set at most
        compared = _compare(config, results)
        for file in _write(config, results, compared):
            print(f"written: {file}")
    _show(config, sets, results, compared)


def _measure(
    config: EvaluateCommand,
    name: str,
    sets: "Sequence[HeldOutSet]",
    teacher: "Pretrained | None",
) -> "Iterator[tuple[HeldOutSet, Measured]]":
    """Each set with what the model got on it, as soon as it has."""
    from adakd_jax.eval.measured import measure
    from adakd_jax.eval.model import length_remarks, open_model
    from adakd_jax.eval.sampled import claim_folder
    from adakd_jax.eval.suite import check_tokens
    from adakd_jax.hf.tokenizer import check_same_tokens
    from adakd_jax.hf.vocabulary import embedding_of

    model = open_model(name, step=config.step if name == config.model else None)
    if model.tokenizer is None:
        raise ValueError(f"{name} has no tokenizer")
    if teacher is not None:
        check_same_tokens(model, teacher)
    prompts = _prompts(config)
    new = 0 if config.generate_examples == 0 else config.sampling().max_new_tokens
    for remark in length_remarks(prompts, new, model, teacher):
        print(f"{PROG}: {remark}", file=sys.stderr)
    embeddings = [embedding_of(each) for each in (model, teacher) if each is not None]
    for each in sets:
        held_out = _held_out(config, name, each, model.tokenizer, prompts)
        check_tokens(held_out, embeddings)
        folder = None
        if config.output is not None and held_out.questions:
            folder = Path(config.output).expanduser() / "answers" / _label(name) / each.name
            claim_folder(folder, model, prompts, config.sampling())
        measured = measure(
            model,
            held_out,
            config.sampling(),
            config.sampling_seeds(),
            title=each.title,
            teacher=teacher,
            folder=folder,
        )
        yield each, measured


def _prompts(config: EvaluateCommand) -> "PromptSettings":
    from adakd_jax.eval.model import prompt_settings

    prompts = prompt_settings(
        config.model, config.template, config.max_length, config.max_prompt_length
    )
    if prompts.max_prompt_length >= prompts.max_length:
        raise ValueError(
            f"max_prompt_length {prompts.max_prompt_length} leaves no room for an answer in "
            f"max_length {prompts.max_length}; valid: a smaller --max_prompt_length"
        )
    return prompts


def _held_out(
    config: EvaluateCommand,
    model: str,
    each: "HeldOutSet",
    tokenizer: "PreTrainedTokenizerFast",
    prompts: "PromptSettings",
) -> "HeldOut":
    from adakd_jax.eval.suite import hold_ready

    held_out = hold_ready(
        each.rows,
        tokenizer,
        **prompts._asdict(),
        batch_rows=config.batch_rows,
        max_examples=config.max_examples,
        generate_examples=config.generate_examples,
        cache_dir=config.cache_dir,
    )
    print(f"{model} on {each.title}: {len(held_out.questions)} questions", file=sys.stderr)
    for reason, count in held_out.left_out.items():
        print(f"{PROG}: {count} rows are not answered: {reason}", file=sys.stderr)
    return held_out


def _compare(
    config: EvaluateCommand, results: "Mapping[str, Mapping[str, Measured]]"
) -> "list[Compared]":
    """The first model against the second; nothing if their tokenizers leave out other rows."""
    from adakd_jax.eval.comparison import compare

    if len(results) < 2:
        return []
    try:
        return compare(*results.values(), resamples=config.resamples)
    except ValueError as error:
        print(f"{PROG}: not compared: {error}", file=sys.stderr)
        return []


def _write(
    config: EvaluateCommand,
    results: "Mapping[str, Mapping[str, Measured]]",
    compared: "Sequence[Compared]",
) -> list[Path]:
    from adakd_jax.eval.evaluation_file import write_evaluation

    if config.output is None:
        return []
    return write_evaluation(Path(config.output).expanduser(), config.told(), results, compared)


def _label(model: str) -> str:
    """A model's name as that of a folder."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", model).strip("_.")[-80:] or "model"


def _show(
    config: EvaluateCommand,
    sets: "Sequence[HeldOutSet]",
    results: "Mapping[str, Mapping[str, Measured]]",
    compared: "Sequence[Compared]",
) -> None:
    from rich.console import Console

    from adakd_jax.eval.table import answers_table, compared_table, metrics_table

    console = Console()
    for each in sets:
        shown = {model: measured[each.name].shown() for model, measured in results.items()}
        console.print(metrics_table(shown, title=each.title))
        # With another tokenizer, other rows may be left out: one prompt, not one index, goes
        # together.
        answers = {
            name: {found["prompt"]: found["answer"] for found in result["answers"]}
            for name, result in shown.items()
        }
        for answered in shown[config.model]["answers"][: config.show_examples]:
            prompt = answered["prompt"]
            texts = {name: found.get(prompt, "–") for name, found in answers.items()}
            console.print(answers_table(prompt, {"reference": answered["references"][0], **texts}))
    if compared:
        console.print(compared_table(compared))


if __name__ == "__main__":
    main()
