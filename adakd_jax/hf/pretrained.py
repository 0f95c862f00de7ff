"""What loading a model gives and saving one takes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flax import nnx
from transformers import PreTrainedTokenizerFast

from adakd_jax.models.config import DecoderConfig

# The keys of config.json and generation_config.json that name special tokens.
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from, and what travels with it besides its weights.

    `hf_config` is its `config.json`; `licence` the identifier in its model card, if it says,
    several joined by ", ".
    """

    name: str
    hf_config: Mapping[str, Any]
    licence: str | None = None
    generation_config: Mapping[str, Any] = field(default_factory=dict)
    chat_template: str | None = None


@dataclass(frozen=True)
class Pretrained:
    """A model and its tokenizer: `nnx.merge(graphdef, params)` is the model.

    `params` are nested dicts of arrays, as in `models.decoder`.
    """

    config: DecoderConfig
    graphdef: nnx.GraphDef
    params: dict[str, Any]
    tokenizer: PreTrainedTokenizerFast | None
    source: ModelSource
