"""From what a command line calls a model to the loaded model: run folder, export, hub id, GGUF."""

import hashlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adakd_jax.config import DataConfig, RunConfig
from adakd_jax.config.chat import ChatConfig
from adakd_jax.config.provenance import CONFIG_FILE
from adakd_jax.config.yaml_file import read_yaml
from adakd_jax.data.templates import TemplateName
from adakd_jax.hf.load import load_pretrained
from adakd_jax.hf.locate import ModelNotFoundError
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.models.positions import Reads, check_positions, position_remark
from adakd_jax.user_path import user_path


def open_model(
    name: str, *, step: int | str | None = None, fallback: str | None = None
) -> Pretrained:
    """Loads a model for measuring: weights and compute in bfloat16 on TPU and GPU, else float32.

    Args:
      name: a run folder (its export if there is one, else its newest checkpoint), an exported
        folder, a hub id, a .gguf file or `package:NAME/FILE`.
      step: for a run folder, the checkpoint to load: a step, 'latest' or 'best'.
      fallback: what to load when `name` cannot be reached.

    Raises:
      ModelNotFoundError: nothing can be reached under either name.
      ValueError: a step for something that is not a run folder; see also `load_pretrained`.
    """
    config = run_config(name)
    if config is None and step is not None:
        raise ValueError(f"a step is for run folders only, but {name!r} has no {CONFIG_FILE}")
    dtype = jnp.bfloat16 if jax.default_backend() in ("tpu", "gpu") else jnp.float32
    if config is not None:
        export = user_path(config.export.path or user_path(name) / "export")
        if step is None and (export / "config.json").is_file():
            return load_pretrained(str(export), dtype=dtype)
        from adakd_jax.training.saved_student import load_student

        return load_student(name, step)
    try:
        return load_pretrained(name, dtype=dtype)
    except ModelNotFoundError:
        if fallback is None:
            raise
        return load_pretrained(fallback, dtype=dtype)


def run_config(name: str) -> RunConfig | None:
    """The settings of a run, or None if `name` is not a run folder.

    Raises:
      ValueError: the file of its settings cannot be read.
    """
    file = user_path(name) / CONFIG_FILE
    if not file.is_file():
        return None
    read = read_yaml(str(file))
    if read.problems:
        raise ValueError(f"{file} cannot be read: {read.problems[0].message}")
    try:
        return RunConfig.model_validate(read.values)
    except ValueError as error:
        raise ValueError(f"{file} holds other settings than this version's: {error}") from error


def weights_digest(params: Any) -> str:
    """Tells weights apart: a hash of up to 256 evenly spaced numbers of each array.

    An optimizer step changes nearly all numbers, so weights of other steps have other digests.
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        places = np.linspace(0, leaf.size - 1, min(leaf.size, 256)).astype(np.int64)
        picked = leaf[np.unravel_index(places, leaf.shape)]
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}".encode())
        digest.update(np.asarray(picked).tobytes())
    return digest.hexdigest()[:16]


class PromptSettings(NamedTuple):
    """How rows become tokens."""

    template: TemplateName
    max_length: int
    max_prompt_length: int
    chat: ChatConfig


def prompt_settings(
    name: str,
    template: TemplateName | None = None,
    max_length: int | None = None,
    max_prompt_length: int | None = None,
    chat: ChatConfig | None = None,
) -> PromptSettings:
    """What is given; for the rest, that of the run `name` if it is one, else the defaults."""
    config = run_config(name)

    def default(key: str) -> Any:
        known = DataConfig.model_fields[key].default
        return known if config is None else getattr(config.data, key)

    return PromptSettings(
        template=template or default("template"),
        max_length=max_length or default("max_length"),
        max_prompt_length=max_prompt_length or default("max_prompt_length"),
        # The template that a run chose is that of its student's tokenizer.
        chat=chat or default("chat").model_copy(update={"template": None}),
    )


def length_remarks(
    settings: PromptSettings, new_tokens: int, model: Pretrained, teacher: Pretrained | None = None
) -> list[str]:
    """Whether models can read and answer as long texts as settings allow.

    Args:
      settings: how rows become tokens.
      new_tokens: of an answer, at most; 0: nothing is answered.
      model: what is measured.
      teacher: what it is compared with, which answers nothing.

    Returns:
      A remark on each model that is to read more than it was made for.

    Raises:
      TooLongError: rows or answers are longer than learned positions.
    """
    rows = [Reads("max_length", settings.max_length)]
    answers = Reads(
        "max_prompt_length + generation.max_new_tokens", settings.max_prompt_length + new_tokens
    )
    answered = settings.template != "text" and new_tokens > 0
    remarks = []
    for each, reads in ((model, [*rows, answers] if answered else rows), (teacher, rows)):
        if each is not None:
            check_positions(each.config, reads, each.source.name)
            remarks.append(position_remark(each.config, reads, each.source.name))
    return [remark for remark in remarks if remark is not None]
