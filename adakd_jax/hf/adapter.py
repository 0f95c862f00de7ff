"""Writes the adapters of a model as a folder that `peft` loads."""

from importlib.metadata import version
from pathlib import Path

from adakd_jax.hf.export import MARK, new_folder
from adakd_jax.hf.peft import adapter_config, adapter_tensors, write_adapter
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.hf.tokenizer import save_tokenizer


def save_adapter(
    pretrained: Pretrained,
    path: str | Path,
    *,
    base: str | None = None,
    revision: str | None = None,
    card: str | None = None,
) -> Path:
    """Exports the adapters of a model, float32, with its tokenizer and a model card.

    The folder appears complete or not at all; an earlier export in its place is replaced.

    Args:
      pretrained: a model with adapters.
      path: the folder to make.
      base: the model without them, as `transformers` finds it; peft's AutoPeftModel loads it.
      revision: its hub branch, tag or commit.
      card: content of README.md; None writes none.

    Returns:
      The folder.

    Raises:
      FileExistsError: something other than an earlier export is in its place.
      ValueError: the model has no adapters.
    """
    config, lora = pretrained.config, pretrained.config.lora
    if lora is None:
        raise ValueError(
            f"{pretrained.source.name} has no adapters; valid: a student trained with "
            "student.lora, or save_pretrained for the whole model"
        )
    tensors = adapter_tensors(config, lora, pretrained.params["layers"])
    with new_folder(path) as folder:
        settings = adapter_config(config, lora, base, revision)
        write_adapter(folder, tensors, settings, {MARK: version("adakd_jax")})
        if pretrained.tokenizer is not None:
            save_tokenizer(pretrained.tokenizer, folder)
        if card is not None:
            (folder / "README.md").write_text(card, encoding="utf-8")
    return Path(path).expanduser().absolute()
