"""One decoder, in Flax NNX, for every supported family."""

from adakd_jax.models.cache import KVCache, init_cache
from adakd_jax.models.config import DecoderConfig, Rope
from adakd_jax.models.decoder import Decoder, abstract_decoder, random_params
from adakd_jax.models.families import FAMILIES, decoder_config
from adakd_jax.models.output import logits
from adakd_jax.models.parameter_axes import parameter_axes
from adakd_jax.models.size import parameter_count

__all__ = [
    "FAMILIES",
    "Decoder",
    "DecoderConfig",
    "KVCache",
    "Rope",
    "abstract_decoder",
    "decoder_config",
    "init_cache",
    "logits",
    "parameter_axes",
    "parameter_count",
    "random_params",
]
