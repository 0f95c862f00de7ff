"""How large a pruned model is: the sizes that settings ask for, and its config.json."""

import contextlib
import dataclasses
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers import CONFIG_MAPPING, AutoConfig

from adakd_jax.config.models import StudentPruned
from adakd_jax.models.config import DecoderConfig, Experts
from adakd_jax.models.families import decoder_config

# What a matrix unit takes at once: widths are multiples of it, or of less where they are small.
_TILE = 128
# A size is rounded by a sixteenth of what it was, at most.
_FEWEST_UNITS = 8


class Sizes(NamedTuple):
    """Of a decoder: layers; neurons of a feed-forward, or of one expert; key-value heads, each with
    its query heads; numbers of the residual stream; experts, 0 without.
    """

    layers: int
    ffw: int
    groups: int
    width: int
    experts: int


def sizes_of(config: DecoderConfig) -> Sizes:
    """The sizes that a model has."""
    experts = 0 if config.experts is None else config.experts.count
    return Sizes(config.num_layers, config.ffw_dim, config.num_kv_heads, config.embed_dim, experts)


def asked_sizes(source: StudentPruned, config: DecoderConfig) -> Sizes:
    """The sizes that settings ask for, rounded to what hardware likes: a pure function of both.

    Args:
        source: the settings of the student.
        config: of the model that is pruned.

    Raises:
        ValueError: names every size that the model has not, and what would be valid.
    """
    whole, problems = sizes_of(config), []
    per_group = config.num_heads // config.num_kv_heads
    asked = _asked(source, config)
    least = 0 if config.experts is None else config.experts.active
    fixed = fixed_sizes(config)
    problems += [
        f"student.{name} is {getattr(source, name)}, but a {config.family} model has {why}, of "
        "which all are kept; valid: null"
        for name, why in fixed.items()
        if getattr(source, name) is not None
    ]
    if source.experts is not None and config.experts is None:
        problems.append("student.experts is given, but the teacher has none; valid: null")
    elif asked["experts"] < least:
        problems.append(
            f"student.experts is {asked['experts']}, but a token has {least} of them; "
            f"valid: {least} to {whole.experts}, or a share"
        )
    limits = zip(asked.items(), (whole._replace(groups=config.num_heads)), strict=True)
    problems += [
        f"student.{name} is {number}, but the teacher has {limit}; valid: 1 to {limit}, or a share"
        for (name, number), limit in limits
        if number > limit
    ]
    if asked["heads"] % per_group:
        problems.append(
            f"student.heads is {asked['heads']}, but {per_group} query heads share a key-value "
            f"head; valid: a multiple of {per_group} up to {config.num_heads}, or a share"
        )
    if problems:
        raise ValueError("\n".join(problems))
    groups = asked.pop("heads") // per_group
    return Sizes(groups=groups, **asked)


def _asked(source: StudentPruned, config: DecoderConfig) -> dict[str, int]:
    """Numbers by the names of the settings."""
    whole, per_group = sizes_of(config), config.num_heads // config.num_kv_heads
    heads = _number(source.heads, config.num_heads, per_group)
    return {
        "layers": _number(source.layers, whole.layers, 1),
        "ffw": _number(source.ffw, whole.ffw, unit_of(whole.ffw)),
        "heads": heads,
        "width": _number(source.width, whole.width, unit_of(whole.width, heads)),
        "experts": _number(source.experts, whole.experts, unit_of(whole.experts)),
    }


def fixed_sizes(config: DecoderConfig) -> dict[str, str]:
    """What cannot be made smaller in some families, and why."""
    found = {}
    if config.wide is not None:
        found["heads"] = "heads of two sizes"
    if config.reader_ffw_dim is not None:
        found["ffw"] = "feed-forwards of two sizes"
    if config.experts is not None and config.experts.beside_dense:
        found["experts"] = "experts beside a feed-forward"
    return found


def unit_of(size: int, heads: int = 1) -> int:
    """Of what a smaller size is a multiple: of a power of two, up to 128, and of the number of
    heads, as transformers wants widths of Llama's.
    """
    tile = 1
    while tile < _TILE and math.lcm(2 * tile, heads) * _FEWEST_UNITS <= size:
        tile *= 2
    return math.lcm(tile, heads)


def _number(asked: int | float | None, whole: int, unit: int) -> int:
    """A number as it is, a share of the whole in units, nothing as the whole."""
    if asked is None:
        return whole
    if isinstance(asked, int):
        return asked
    return max(unit, round(asked * whole / unit) * unit)


# Keys of a config.json that say a width, where it has them.
_WIDTHS = ("hidden_size", "word_embed_proj_dim", "n_embd")
_HEADS = ("num_attention_heads", "n_head")
# Of one model, a file may have both.
_EXPERTS = ("num_experts", "num_local_experts")
# Fields of `DecoderConfig` that a key may have to be given for, and these: the first that does it.
_SAID_BY = {
    "head_dim": ("head_dim",),
    "num_kv_heads": ("num_key_value_heads",),
    "ffw_dim": (
        *("moe_intermediate_size", "shared_intermediate_size", "intermediate_size"),
        *("n_inner", "ffn_dim"),
    ),
    "experts": _EXPERTS,
}
# What follows from the width alone.
_FOLLOWS = ("embed_scale",)


def with_sizes(hf_config: Mapping[str, Any], sizes: Sizes) -> dict[str, Any]:
    """The config.json of a model with other widths; the number of layers stays, and so does the
    width of a head.

    Raises:
        ValueError: the family has no way to say so, or transformers does not take it.
    """
    wanted = _resized(decoder_config(hf_config), sizes)
    changed = dict(hf_config)
    changed |= {key: wanted.embed_dim for key in _WIDTHS if key in changed}
    changed |= {key: wanted.num_heads for key in _HEADS if key in changed}
    if "num_key_value_heads" in changed:
        changed["num_key_value_heads"] = wanted.num_kv_heads
    if wanted.experts is not None:
        changed |= {key: wanted.experts.count for key in _EXPERTS if key in changed}
    for field, keys in _SAID_BY.items():
        changed = _said(changed, field, keys, wanted)
    problem = _difference(changed, wanted)
    if problem is not None:
        raise ValueError(
            f"a config.json of {wanted.family} cannot say what student.kind pruned asks for: "
            f"{problem}; valid: student.layers and student.ffw, or student.width and student.heads "
            "by the same share"
        )
    _check_accepted(changed)
    return changed


def _resized(config: DecoderConfig, sizes: Sizes) -> DecoderConfig:
    experts = config.experts
    if experts is not None:
        experts = dataclasses.replace(experts, count=sizes.experts)
    per_group = config.num_heads // config.num_kv_heads
    return dataclasses.replace(
        config,
        ffw_dim=sizes.ffw,
        num_kv_heads=sizes.groups,
        num_heads=sizes.groups * per_group,
        embed_dim=sizes.width,
        experts=experts,
    )


def _said(
    hf_config: dict[str, Any], field: str, keys: Sequence[str], wanted: DecoderConfig
) -> dict[str, Any]:
    """With the first of some keys that makes the family's reader see a field as it is wanted; as it
    is, if it does already or none does.
    """
    value = getattr(wanted, field)
    number = value.count if isinstance(value, Experts) else value
    for option in (hf_config, *({**hf_config, key: number} for key in keys)):
        with contextlib.suppress(ValueError):  # of a head that no rotation fits, without head_dim
            if getattr(decoder_config(option), field) == value:
                return option
    return hf_config


def _difference(hf_config: Mapping[str, Any], wanted: DecoderConfig) -> str | None:
    try:
        found = decoder_config(hf_config)
    except ValueError as error:
        return str(error)
    differing = [
        f"{field.name} would be {getattr(found, field.name)!r} in place of "
        f"{getattr(wanted, field.name)!r}"
        for field in dataclasses.fields(wanted)
        if field.name not in _FOLLOWS and getattr(found, field.name) != getattr(wanted, field.name)
    ]
    return "; ".join(differing) or None


def _check_accepted(hf_config: Mapping[str, Any]) -> None:
    """Have transformers read the config.json: a student that it refuses could not be used."""
    if hf_config["model_type"] not in CONFIG_MAPPING:  # a family that is younger than it
        return
    try:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(hf_config))
            AutoConfig.from_pretrained(folder)
    except Exception as error:  # of transformers and of huggingface_hub, of several kinds
        reason = " ".join(str(error).split())
        raise ValueError(
            f"transformers refuses a {hf_config['model_type']} of the sizes that student.kind "
            f"pruned asks for: {reason}"
        ) from error
