"""A loaded model with low-rank adapters: new ones, those of a PEFT folder, or merged into it."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array

from adakd_jax.config.models import LoraConfig
from adakd_jax.hf.keymap import projections
from adakd_jax.hf.peft import AdapterError, LowRank, PeftAdapter, read_adapter
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.models.config import DecoderConfig, Lora
from adakd_jax.models.decoder import abstract_decoder, random_params
from adakd_jax.models.lora import (
    ADAPTER,
    add_low_rank,
    combine,
    merge_adapters,
    split_adapters,
)


def lora_of(settings: LoraConfig, config: DecoderConfig) -> Lora:
    """The adapters that settings ask for, of this model.

    Raises:
        ValueError: a target is no projection of the model; names those that there are.
    """
    known = projections(config)
    wanted = settings.targets
    if wanted is None:
        wanted = tuple(each.module for each in known)
    unknown = [name for name in wanted if not any(each.is_called(name) for each in known)]
    if unknown:
        valid = dict.fromkeys(each.module.rpartition(".")[2] for each in known)
        raise ValueError(
            f"student.lora.targets: a {config.family} model has no projection called "
            f"{', '.join(unknown)}{_no_experts(config)}; valid: {', '.join(valid)}, or null for all"
        )
    chosen = [each for each in known if any(each.is_called(name) for name in wanted)]
    return Lora(
        rank=settings.rank,
        alpha=settings.alpha,
        dropout=settings.dropout,
        targets=tuple(path for each in chosen for path in each.paths),
    )


def _no_experts(config: DecoderConfig) -> str:
    return (
        "" if config.experts is None else " that can have an adapter (routers and experts cannot)"
    )


def with_adapters(
    model: Pretrained,
    settings: LoraConfig,
    key: Array,
    adapter: epath.PathLike | None = None,
    *,
    drawn: bool = True,
) -> Pretrained:
    """The model with adapters beside its weights, which are not copied.

    Args:
        model: the model.
        settings: of the adapters.
        key: random key of new ones: A is drawn, B is 0, so that the model stays what it is.
        adapter: a PEFT adapter to start from in their place.
        drawn: False leaves the adapters shapes, for who has them from a checkpoint.

    Raises:
        ValueError: a target that the model has not.
        ModelNotFoundError: the adapter cannot be reached.
        AdapterError: it does not fit the model, or is not of these settings.
    """
    lora = lora_of(settings, model.config)
    config = dataclasses.replace(model.config, lora=lora)
    graphdef, shapes = abstract_decoder(config)
    if not drawn:
        adapters = split_adapters(shapes)[1]
    elif adapter is None:
        adapters = _new_adapters(config, key)
    else:
        adapters = _adapters_of(read_adapter(adapter, config), lora)
    params = combine(model.params, adapters)
    whole = Pretrained(config, graphdef, params, model.tokenizer, model.source)
    return whole if adapter is None else named_after(whole, adapter)


@functools.partial(jax.jit, static_argnums=0)
def _new_adapters(config: DecoderConfig, key: Array) -> dict[str, Any]:
    """The compiler leaves out the weights beside them."""
    return split_adapters(random_params(config, key))[1]


def _adapters_of(adapter: PeftAdapter, lora: Lora) -> dict[str, Any]:
    """Parameters of ours, if the adapter is of these settings."""
    differing = [
        path
        for path in sorted(set(adapter.updates) | set(lora.targets))
        if path not in adapter.updates
        or path not in lora.targets
        or adapter.updates[path].a.shape[-1] != lora.rank
        or not np.allclose(adapter.updates[path].scale, lora.scale, rtol=1e-6)
    ]
    if differing:
        settings = adapter.settings
        raise AdapterError(
            f"adapter {adapter.name} is not of the settings of student.lora (they differ in "
            f"{', '.join(differing)}), so that it cannot be trained further as it is; valid: "
            f"student.lora.rank {settings.get('r')}, alpha {settings.get('lora_alpha')} and "
            f"targets {', '.join(adapter.modules)}, if all its layers are the same; or merge it "
            "into the weights first (python -m adakd_jax.export of a run without student.lora)"
        )
    flat = {}
    for path, update in adapter.updates.items():
        place = ("layers", *path.split("."), ADAPTER)
        flat[*place, "a"], flat[*place, "b"] = jnp.asarray(update.a), jnp.asarray(update.b)
    return unflatten_dict(flat)


def merge_peft(model: Pretrained, adapter: epath.PathLike) -> Pretrained:
    """The model with a PEFT adapter merged into its weights: W + scale·A·B, in W's dtype and place.

    Raises:
        ModelNotFoundError: the adapter cannot be reached.
        AdapterError: it does not fit the model.
    """
    read = read_adapter(adapter, model.config)
    flat: dict[Any, Any] = flatten_dict(model.params)
    for path, update in read.updates.items():
        kernel = ("layers", *path.split("."), "kernel")
        flat[kernel] = _merged(flat[kernel], update)
    return named_after(dataclasses.replace(model, params=unflatten_dict(flat)), adapter)


def named_after(model: Pretrained, adapter: epath.PathLike) -> Pretrained:
    """The model under the name that it has with an adapter."""
    source = dataclasses.replace(model.source, name=f"{model.source.name} with {adapter}")
    return dataclasses.replace(model, source=source)


def _merged(kernel: Array, update: LowRank) -> Array:
    merged = add_low_rank(kernel, update.a, update.b, update.scale)
    return jax.device_put(merged, kernel.sharding)


def without_adapters(model: Pretrained) -> Pretrained:
    """The same model, its adapters merged: float32. A model without adapters as it is."""
    lora = model.config.lora
    if lora is None:
        return model
    config = dataclasses.replace(model.config, lora=None)
    graphdef, _ = abstract_decoder(config)
    params = merge_adapters(model.params, lora)
    return dataclasses.replace(model, config=config, graphdef=graphdef, params=params)
