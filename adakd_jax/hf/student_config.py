"""The config.json of a student that starts as a part of its teacher."""

from collections.abc import Mapping, Sequence
from typing import Any

from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.families import decoder_config, family_of
from adakd_jax.models.layer_kinds import mixers_of
from adakd_jax.pruning.choice import Choice, sizes_of_choice
from adakd_jax.pruning.sizes import with_sizes

# Keys of a config.json that say by a rule what `layer_types` says layer by layer.
_LAYER_RULES = ("sliding_window_pattern", "_sliding_window_pattern", "full_attention_interval")
_LAYER_COUNTS = ("num_hidden_layers", "n_layer")


def select_layers(hf_config: Mapping[str, Any], layers: Sequence[int]) -> dict[str, Any]:
    """The config.json of a model that keeps some layers of another.

    Each kept layer stays of its kind (full, sliding-window or linear attention), wherever it now
    stands.

    Args:
      hf_config: the config.json of the whole model.
      layers: layers to keep, from 0, increasing.

    Raises:
      ValueError: no layers, layers out of range, or not in increasing order.
    """
    whole = decoder_config(hf_config)
    _check_layers(layers, whole.num_layers)
    selected = {k: v for k, v in hf_config.items() if k not in _LAYER_RULES}
    for key in _LAYER_COUNTS:
        if key in selected:
            selected[key] = len(layers)
    more = family_of(hf_config).select(hf_config, layers)
    selected |= more
    kinds = hf_config.get("layer_types")
    if "layer_types" in more:
        return selected
    if kinds is None and (len(whole.window_choices) > 1 or whole.mixers):
        kinds = [_layer_type(whole, layer) for layer in range(whole.num_layers)]
    if kinds is not None:
        selected["layer_types"] = [kinds[layer] for layer in layers]
    return selected


def can_keep(hf_config: Mapping[str, Any], layers: Sequence[int]) -> bool:
    """Whether some layers of a model make one of its family: in some of these, layers read what
    others have made.
    """
    try:
        decoder_config(select_layers(hf_config, layers))
    except ValueError:
        return False
    return True


def _layer_type(config: DecoderConfig, layer: int) -> str:
    """What a layer is called in `layer_types`."""
    if mixers_of(config)[layer] == "delta":
        return "linear_attention"
    return "full_attention" if config.windows[layer] is None else "sliding_attention"


def _check_layers(layers: Sequence[int], count: int) -> None:
    if not layers:
        raise ValueError("student.layers is empty; name at least one of the teacher's layers")
    absent = [layer for layer in layers if not 0 <= layer < count]
    if absent:
        raise ValueError(f"student.layers names {absent}; the teacher has layers 0 to {count - 1}")
    if list(layers) != sorted(set(layers)):
        raise ValueError(f"student.layers must increase, each layer once; got {list(layers)}")


def chosen_config(hf_config: Mapping[str, Any], choice: Choice) -> dict[str, Any]:
    """The config.json of a model of which only some parts are kept.

    Raises:
      ValueError: layers that it has not, or sizes that its family cannot have.
    """
    selected = select_layers(hf_config, choice.layers)
    if all(kept is None for kept in choice[1:]):
        return selected
    return with_sizes(selected, sizes_of_choice(decoder_config(selected), choice))
