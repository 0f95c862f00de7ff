"""Answers prompts with a model: `python -m adakd_jax.generate --model M --prompts P --output A`."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from adakd_jax.config import Columns, FileSource, GenerationConfig
from adakd_jax.config.chat import ChatConfig
from adakd_jax.config.parse import parse
from adakd_jax.config.stage import Check, Conflict, Stage
from adakd_jax.user_path import local_path

if TYPE_CHECKING:
    from adakd_jax.data.tokenize import Encoder
    from adakd_jax.hf.pretrained import Pretrained

PROG = "python -m adakd_jax.generate"


def _one_source(prompts: str | None, text: str | None) -> Conflict | None:
    if (prompts is None) != (text is None):
        return None
    given = "neither" if text is None else "both"
    return Conflict(f"give exactly one of prompts and text, not {given}", "one of the two")


def _where_to(prompts: str | None, output: str | None) -> Conflict | None:
    if prompts is None or output is not None:
        return None
    return Conflict("prompts are answered into a file, but output is absent", "--output FILE.jsonl")


class GenerateCommand(Stage):
    """What answers what."""

    checks: ClassVar[tuple[Check, ...]] = (
        Check(("prompts", "text"), _one_source),
        Check(("prompts", "output"), _where_to),
    )

    model: str = Field(
        description="run folder, exported folder, hub id, .gguf file or 'package:NAME/FILE'"
    )
    fallback: str | None = Field(default=None, description="used when `model` cannot be reached")
    prompts: str | None = Field(
        default=None,
        description="JSON, JSON lines, CSV or Parquet file(s) of rows; glob patterns allowed",
    )
    output: str | None = Field(
        default=None, description="local JSONL file to append to; rows that it has are skipped"
    )
    text: str | None = Field(default=None, description="one instruction; its answer is printed")
    template: Literal["alpaca", "chat"] | None = Field(
        default=None, description="prompt format; null: that of the run folder, else alpaca"
    )
    chat: ChatConfig | None = Field(
        default=None,
        description="how a chat template is used; null: as the run folder says, else by default",
    )
    max_prompt_length: PositiveInt | None = Field(
        default=None,
        description="tokens of a prompt; a longer one loses the middle of its input; "
        "null: that of the run folder, else 256",
    )
    max_rows: PositiveInt | None = Field(default=None, description="use only the first rows")
    seed: NonNegativeInt = Field(default=0, description="of sampling")
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
        GenerateCommand,
        sys.argv[1:] if argv is None else argv,
        prog=PROG,
        description="Answers prompts with a model: a file of them, or one.",
        requires_config=False,
    )
    if config.text is not None:
        _answer_text(config, config.text)
    elif config.prompts is not None and config.output is not None:
        _answer_file(config, config.prompts, config.output)


# What follows imports late: help and mistakes in flags do not wait for JAX.
def _answer_text(config: GenerateCommand, text: str) -> None:
    from adakd_jax.data.rows import normalize_row
    from adakd_jax.eval.answers import answer_prompts
    from adakd_jax.eval.command import user_errors

    with user_errors(PROG):
        asked = {"instruction": text}
        row = normalize_row(asked, Columns(), origin="--text", require_output=False)
        model, encoder = _open(config)
        prompt = encoder.prompt(row).tokens.tolist()
    one = config.generation.model_copy(update={"batch_size": 1})
    print(answer_prompts(model, [prompt], one, seed=config.seed)[0].text)


def _answer_file(config: GenerateCommand, prompts: str, output: str) -> None:
    from adakd_jax.data.sources import OWN_ROWS, open_rows
    from adakd_jax.eval.answer_file import answer_file
    from adakd_jax.eval.command import user_errors

    with user_errors(PROG):
        rows = open_rows(
            FileSource(path=prompts),
            columns=config.columns,
            cache_dir=config.cache_dir,
            max_rows=config.max_rows,
            require_output=False,
            flags=OWN_ROWS,
        )
        print(f"{PROG}: {rows.report.summary()}", file=sys.stderr)
        model, encoder = _open(config)
        report = answer_file(
            model, encoder, rows, local_path(output, "output"), config.generation, seed=config.seed
        )
    print(f"{output}: {report.summary()}")


def _open(config: GenerateCommand) -> "tuple[Pretrained, Encoder]":
    from adakd_jax.data.templates import template_warning
    from adakd_jax.data.tokenize import Encoder
    from adakd_jax.eval.command import keep_compilations
    from adakd_jax.eval.model import open_model, prompt_settings
    from adakd_jax.hf.chat_template import with_template

    keep_compilations()
    settings = prompt_settings(
        config.model,
        config.template,
        max_prompt_length=config.max_prompt_length,
        chat=config.chat,
    )
    model = open_model(config.model, fallback=config.fallback)
    if model.tokenizer is None:
        raise ValueError(f"{config.model} has no tokenizer")
    warning = template_warning(settings.template, model.tokenizer)
    if warning is not None:
        print(f"{PROG}: {warning}", file=sys.stderr)
    if settings.template == "chat":
        model, _ = with_template(model, settings.chat)
    assert model.tokenizer is not None
    limits = settings.max_prompt_length, settings.max_prompt_length + 1
    return model, Encoder(settings.template, model.tokenizer, *limits, settings.chat)


if __name__ == "__main__":
    main()
