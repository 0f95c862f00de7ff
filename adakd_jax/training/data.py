"""The rows of a run: what is trained on, and what is held out of it."""

from collections.abc import Callable

from adakd_jax.config import DataConfig
from adakd_jax.console import Console
from adakd_jax.data.examples import Examples, encode_rows
from adakd_jax.data.row_source import RowSource
from adakd_jax.data.sources import open_rows
from adakd_jax.data.split import hold_out
from adakd_jax.hf.pretrained import Pretrained


def read_data(
    config: DataConfig,
    student: Pretrained,
    seed: int,
    console: Console,
    rewrite: Callable[[RowSource], RowSource] = lambda rows: rows,
) -> tuple[Examples, RowSource | None]:
    """Training examples, and the rows held out of them or given for validation; `seed` picks the
    rows of a share that is held out, and `rewrite` may give the training rows other answers.
    """
    if student.tokenizer is None:
        raise ValueError(f"{student.source.name} has no tokenizer; add its tokenizer.json")
    options = {
        "columns": config.columns,
        "on_error": config.on_error,
        "cache_dir": config.cache_dir,
        "require_output": config.template != "text",  # of which the text is all there is
    }
    rows = open_rows(config.train, max_rows=config.max_rows, **options)
    held_out = None
    if config.validation is not None:
        held_out = open_rows(config.validation, **options)
    elif config.validation_fraction > 0:
        kept, out = hold_out(len(rows), config.validation_fraction, seed)
        rows, held_out = rows.select(kept), rows.select(out)
    rows = rewrite(rows)
    examples = encode_rows(
        rows,
        config.template,
        student.tokenizer,
        max_prompt_length=config.max_prompt_length,
        max_length=config.max_length,
        chat=config.chat,
        on_error=config.on_error,
        cache_dir=config.cache_dir,
    )
    console.print(
        f"data     {rows.report.summary()}\n         {examples.report.summary()}", soft_wrap=True
    )
    if held_out is not None:
        console.print(f"held out {len(held_out)} rows of {held_out.report.name}")
    return examples, held_out
