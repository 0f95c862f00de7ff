"""How large a model is, in numbers and in words."""

import dataclasses
import math

import jax

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.decoder import abstract_decoder


def parameter_count(config: DecoderConfig) -> int:
    """Number of parameters; a tied embedding counts once."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_decoder(config)[1]))


def active_parameter_count(config: DecoderConfig) -> int:
    """Parameters that a token meets: all but those of the experts that it does not have."""
    whole = parameter_count(config)
    if config.experts is None:
        return whole
    # Without some experts, and what the router has for them.
    fewer = dataclasses.replace(config.experts, count=config.experts.active)
    router = config.embed_dim + config.experts.router_bias + config.experts.beside_dense
    idle = config.experts.count - config.experts.active
    less = parameter_count(dataclasses.replace(config, experts=fewer))
    return less + config.num_layers * idle * router


def parameters_in_words(config: DecoderConfig) -> str:
    """Such as `30,532.1M parameters, 3,353.0M of them active`, in millions."""
    words = f"{parameter_count(config) / 1e6:,.1f}M parameters"
    if config.experts is None:
        return words
    return f"{words}, {active_parameter_count(config) / 1e6:,.1f}M of them active"
