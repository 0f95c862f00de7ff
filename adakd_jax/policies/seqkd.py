"""Sequence-level distillation: before training, the teacher answers the training prompts."""

from pathlib import Path

import jax

from adakd_jax.config import Columns, DataConfig, FileSource, SeqKd
from adakd_jax.console import Console
from adakd_jax.data.cache import content_key, local_folder
from adakd_jax.data.examples import tokenizer_digest
from adakd_jax.data.row_source import RowSource
from adakd_jax.data.sources import open_rows
from adakd_jax.data.tokenize import Encoder
from adakd_jax.eval.answer_file import answer_file
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.models.quantized import quantization_of

FILE = "answers.jsonl"


def teacher_written(
    rows: RowSource,
    teacher: Pretrained,
    policy: SeqKd,
    data: DataConfig,
    *,
    weights: str,
    seed: int,
    console: Console,
) -> RowSource:
    """The same prompts with the teacher's answers, as ArrayRecord in `data.cache_dir`.

    Answers are written block by block, so that an interrupted start goes on; a later run of the
    same prompts, teacher and settings finds them. Rows that the teacher leaves empty are dropped.

    Args:
      rows: the training rows.
      teacher: who answers.
      policy: how it samples.
      data: how rows become prompts.
      weights: names the content of the teacher's files, whatever their place.
      seed: of sampling.
      console: where it is said what was done.
    """
    assert teacher.tokenizer is not None
    settings = policy.generation
    encoder = Encoder(
        data.template, teacher.tokenizer, data.max_prompt_length, data.max_length, data.chat
    )
    key = content_key(
        rows=rows.key,
        teacher=[weights, dict(teacher.source.hf_config), quantization_of(teacher.params)],
        tokenizer=tokenizer_digest(teacher.tokenizer),
        prompts=[encoder.template_key, data.max_prompt_length],
        generation=settings.model_dump(),
        seed=seed,
    )
    # Processes of one machine do not write into each other's file.
    part = f"-{jax.process_index()}" if jax.process_count() > 1 else ""
    file = local_folder(data.cache_dir) / f"seqkd-{key}{part}" / FILE
    report = answer_file(teacher, encoder, rows, Path(file), settings, seed=seed)
    console.print(f"seqkd    {report.summary()}", soft_wrap=True)
    return open_rows(
        FileSource(path=str(file)), columns=Columns(), cache_dir=data.cache_dir, on_error="skip"
    )
