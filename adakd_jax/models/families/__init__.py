"""The families of models that can be read: a file each.

A file's `FAMILY` is all that the project knows of it. To add one, add a file. What several share
stands in the file of the first, or in one that begins with an underscore.
"""

import importlib
import pkgutil
from collections.abc import Iterator

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.family import Family
from adakd_jax.models.hf_values import HFConfig, check_kinds


def _families() -> Iterator[Family]:
    for file in pkgutil.iter_modules(__path__):
        if not file.name.startswith("_"):
            yield importlib.import_module(f"{__name__}.{file.name}").FAMILY


FAMILIES: dict[str, Family] = {family.model_type: family for family in _families()}


def family_of(hf_config: HFConfig) -> Family:
    """The family that a config.json names.

    Raises:
        ValueError: it is not supported.
    """
    name = hf_config.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise ValueError(f"model_type {name!r} is not supported; valid: {', '.join(FAMILIES)}")
    return FAMILIES[name]


def decoder_config(hf_config: HFConfig) -> DecoderConfig:
    """Read a `config.json`, of transformers 4 or 5.

    Args:
        hf_config: the parsed file. A key that is absent has the family's default in transformers.

    Returns:
        the decoder's configuration, to compute in float32 without rematerialisation.

    Raises:
        ValueError: the family, activation, RoPE type or layer type is not supported, with a list of
            those that are; or a required key is missing, or a value of another kind.
    """
    family = family_of(hf_config)
    check_kinds(hf_config)
    return family.read(hf_config)
