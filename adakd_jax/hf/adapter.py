"""Writes the adapters of a model as a folder that `peft` loads."""

from importlib.metadata import version

from etils import epath

from adakd_jax.hf.folder import MARK, absolute, new_folder
from adakd_jax.hf.peft_export import adapter_config, adapter_tensors, write_adapter
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.hf.tokenizer import save_tokenizer
from adakd_jax.processes import is_first


def save_adapter(
    pretrained: Pretrained,
    path: epath.PathLike,
    *,
    base: str | None = None,
    revision: str | None = None,
    card: str | None = None,
) -> epath.Path:
    """Exports the adapters of a model, float32, with its tokenizer and a model card.

    Of the folder and of processes, see `save_pretrained`.

    Args:
      pretrained: a model with adapters.
      path: the folder to make; local, or remote as in gs://bucket/folder.
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
        if is_first():
            settings = adapter_config(config, lora, base, revision)
            write_adapter(folder, tensors, settings, {MARK: version("adakd_jax")})
            if pretrained.tokenizer is not None:
                save_tokenizer(pretrained.tokenizer, folder)
            if card is not None:
                (folder / "README.md").write_text(card, encoding="utf-8")
    return absolute(path)
