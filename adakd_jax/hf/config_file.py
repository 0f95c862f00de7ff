"""The config.json of a model's folder, checked before any weight is read."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adakd_jax.hf.model_files import ModelFileError, listing, read_json
from adakd_jax.hf.multimodal import MULTIMODAL, text_config
from adakd_jax.hf.mxfp4 import is_mxfp4
from adakd_jax.hf.peft import ADAPTER_CONFIG
from adakd_jax.models.families import FAMILIES, decoder_config, family_of
from adakd_jax.models.rope_keys import rope_remark

CONFIG = "config.json"


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of a model that can be read; of one that sees as well, its text model's.

    Warns where its keys of rotary positions contradict one another, and of an adapter beside it.

    Args:
        path: the model's folder, or the file.

    Raises:
        ModelFileError: there is none, it cannot be read, or describes a model that is not
            supported.
    """
    file = path / CONFIG if path.is_dir() else path
    if not file.is_file():
        raise ModelFileError(_no_config(path))
    hf_config = text_config(read_json(file))
    try:
        decoder_config(hf_config)
    except ValueError as error:
        unknown = hf_config.get("model_type") not in list(FAMILIES)
        inside = f", and the text models inside {', '.join(MULTIMODAL)}" if unknown else ""
        raise ModelFileError(f"{file}: {error}{inside}") from error
    remark = rope_remark(hf_config, family_of(hf_config).rope)
    if remark is not None:
        warnings.warn(f"{file}: {remark}", stacklevel=2)
    if (file.parent / ADAPTER_CONFIG).is_file():
        warnings.warn(
            f"{file.parent} has {ADAPTER_CONFIG} too: the model is read without that adapter; "
            "to merge it name the folder as teacher.adapter or student.adapter",
            stacklevel=2,
        )
    return hf_config


def check_not_quantised(hf_config: Mapping[str, Any], where: object) -> None:
    """Refuse a model whose files hold quantised weights, but for those that can be read.

    Args:
        hf_config: its config.json.
        where: its folder or file, for the message.

    Raises:
        ModelFileError: it says that it is quantised, and how.
    """
    how = hf_config.get("quantization_config")
    if not how or is_mxfp4(hf_config):
        return
    settings = how if isinstance(how, Mapping) else {}
    method = settings.get("quant_method") or next(
        (key for key, value in settings.items() if key.startswith("load_in_") and value is True),
        "an unnamed method",
    )
    raise ModelFileError(
        f"{where} is quantised ({method}, says quantization_config in its {CONFIG}), and such "
        "weights cannot be read; valid: the original model, with teacher.quantization to round it "
        "as it is read, or a .gguf file"
    )


def _no_config(path: Path) -> str:
    if not path.is_dir():
        return f"{path} is not there"
    said = f"{path} has no {CONFIG}; files there: {listing(path)}"
    if (path / ADAPTER_CONFIG).is_file():
        said += (
            "; it is a PEFT adapter: name its base model as path and this folder as "
            "teacher.adapter or student.adapter"
        )
    return said
