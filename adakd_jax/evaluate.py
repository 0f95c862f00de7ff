"""Measures models on held-out rows: `python -m adakd_jax.evaluate --model M --suite dolly`."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adakd_jax.config.evaluate import EvaluateCommand
from adakd_jax.config.parse import parse
from adakd_jax.user_path import local_path

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from adakd_jax.eval.comparison import Compared
    from adakd_jax.eval.held_out_sets import HeldOutSet
    from adakd_jax.eval.measured import Measured
    from adakd_jax.eval.model import PromptSettings
    from adakd_jax.eval.suite import HeldOut
    from adakd_jax.hf.pretrained import Pretrained

PROG = "python -m adakd_jax.evaluate"


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
            config.suite,
            config.data,
            columns=config.columns,
            cache_dir=config.cache_dir,
            require_output=_prompts(config).template != "text",
        )
        for each in sets:
            print(f"{PROG}: {each.rows.report.summary()}", file=sys.stderr)
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
    from adakd_jax.hf.chat_template import with_template
    from adakd_jax.hf.tokenizer import check_same_tokens
    from adakd_jax.hf.vocabulary import embedding_of

    model = open_model(name, step=config.step if name == config.model else None)
    if model.tokenizer is None:
        raise ValueError(f"{name} has no tokenizer")
    if teacher is not None:
        check_same_tokens(model, teacher)
    prompts = _prompts(config)
    if prompts.template == "chat":
        model, _ = with_template(model, prompts.chat)
    assert model.tokenizer is not None
    new = 0 if config.generate_examples == 0 else config.sampling().max_new_tokens
    for remark in length_remarks(prompts, new, model, teacher):
        print(f"{PROG}: {remark}", file=sys.stderr)
    embeddings = [embedding_of(each) for each in (model, teacher) if each is not None]
    for each in sets:
        held_out = _held_out(config, name, each, model.tokenizer, prompts)
        check_tokens(held_out, embeddings)
        folder = None
        if config.output is not None and held_out.questions:
            folder = local_path(config.output, "output") / "answers" / _label(name) / each.name
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
        config.model,
        config.template,
        config.max_length,
        config.max_prompt_length,
        config.chat,
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
    unused = [("answered", held_out.left_out)]
    if held_out.examples is not None:
        unused.append(("measured", held_out.examples.report.dropped))
    for what, reasons in unused:
        for reason, count in reasons.items():
            print(f"{PROG}: {count} rows are not {what}: {reason}", file=sys.stderr)
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
    return write_evaluation(local_path(config.output, "output"), config.told(), results, compared)


def _label(model: str) -> str:
    """A model's name as that of a folder."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", model).strip("_.")[-80:] or "model"


def _show(
    config: EvaluateCommand,
    sets: "Sequence[HeldOutSet]",
    results: "Mapping[str, Mapping[str, Measured]]",
    compared: "Sequence[Compared]",
) -> None:
    from adakd_jax.console import Console
    from adakd_jax.eval.table import answers_table, compared_table, metrics_table

    console = Console()
    for each in sets:
        shown = {model: measured[each.name].shown() for model, measured in results.items()}
        console.print(each.title)
        console.print(metrics_table(shown))
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
