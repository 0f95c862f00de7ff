"""Where a student's weights start: some of the teacher's layers, a checkpoint, or at random."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array
from transformers import PreTrainedTokenizerFast

from adakd_jax.config.models import Student, StudentCheckpoint, StudentLayers, StudentRandom
from adakd_jax.hf.config_file import read_config
from adakd_jax.hf.load import load_pretrained
from adakd_jax.hf.locate import CONFIG_FILES, locate
from adakd_jax.hf.lora import merge_peft, named_after, with_adapters
from adakd_jax.hf.pretrained import ModelSource, Pretrained
from adakd_jax.hf.vocabulary import tokenizer_size
from adakd_jax.models.config import ComputeDtype, DecoderConfig
from adakd_jax.models.decoder import abstract_decoder, random_params
from adakd_jax.models.families import decoder_config, family_of
from adakd_jax.models.layer_kinds import keep_layers, mixers_of
from adakd_jax.models.quantized import quantization_of
from adakd_jax.sharding import RULES, Rules, parameter_spec, shardings_like

# Keys of a config.json that say by a rule what `layer_types` says layer by layer.
_LAYER_RULES = ("sliding_window_pattern", "_sliding_window_pattern", "full_attention_interval")
_LAYER_COUNTS = ("num_hidden_layers", "n_layer")

# Which of a student's weights are read or made: all; those under its adapters, which training
# leaves as they are, so that no checkpoint holds them; or none. The others are shapes.
Held = Literal["all", "frozen", "none"]


def init_student(
    source: Student,
    teacher: Pretrained | None,
    key: Array,
    *,
    mesh: Mesh | None = None,
    rules: Rules = RULES,
    held: Held = "all",
) -> Pretrained:
    """Makes the student that training starts from, in buffers of its own: float32 parameters; under
    `lora` those of the base, in its precision, with float32 adapters beside them.

    Args:
      source: where the weights come from, and in what precision the student computes.
      teacher: the loaded teacher; needed for its layers, and for the tokenizer of a student that
        starts at random.
      key: random key; used for random weights and new adapters only.
      mesh: over which every parameter is made or read in its shards; None: on the default device.
      rules: what is split over the mesh.
      held: the weights that are needed; a run that goes on from a checkpoint has the others there.

    Raises:
      ValueError: a layer that the teacher has not, layers of a quantised teacher, a vocabulary too
        small for the tokenizer, or a target of adapters that the model has not.
      ModelNotFoundError: a checkpoint, configuration or adapter that cannot be reached.
      AdapterError: an adapter that does not fit.
    """
    frozen = source.lora is not None
    weights = held == "all" or (held == "frozen" and frozen)
    student = _base(source, teacher, key, mesh, rules, weights)
    if source.lora is None:
        if source.adapter is None:
            return student
        join = merge_peft if weights else named_after
        return join(student, source.adapter)
    key = jax.random.fold_in(key, 1)
    student = with_adapters(student, source.lora, key, source.adapter, drawn=held == "all")
    if mesh is None or held != "all":
        return student
    split = shardings_like(student.params, mesh, rules)
    return dataclasses.replace(student, params=jax.device_put(student.params, split))


def _base(
    source: Student,
    teacher: Pretrained | None,
    key: Array,
    mesh: Mesh | None,
    rules: Rules,
    weights: bool,
) -> Pretrained:
    """The student without adapters; without `weights`, its parameters as shapes."""
    dtype = jnp.dtype("float32" if source.lora is None else source.lora.base_dtype)
    if isinstance(source, StudentCheckpoint):
        return load_pretrained(
            source.path,
            dtype=dtype,
            compute_dtype=compute_dtype(source),
            remat=source.remat,
            revision=source.revision,
            mesh=mesh,
            rules=lambda path: parameter_spec(path, rules),
            weights=weights,
        )
    shardings = functools.partial(_shardings, mesh, rules)
    if isinstance(source, StudentRandom):
        return _from_random(source, teacher, key if weights else None, dtype, shardings)
    if teacher is None:
        raise ValueError("student.kind is 'layers', which needs a teacher to take them from")
    return _from_layers(source, teacher, dtype, shardings if weights else None)


# From the shapes of parameters to their shardings, None without a mesh.
Shardings = Callable[[Any], Any]


def _shardings(mesh: Mesh | None, rules: Rules, params: Any) -> Any:
    return None if mesh is None else shardings_like(params, mesh, rules)


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


def _from_layers(
    source: StudentLayers, teacher: Pretrained, dtype: DTypeLike, shardings: Shardings | None
) -> Pretrained:
    """Without `shardings`, as shapes."""
    if quantization_of(teacher.params) is not None:
        raise ValueError(
            f"the kernels of {teacher.source.name} are rounded, which is no weights to start a "
            "student from; valid: teacher.quantization null, or student.kind checkpoint"
        )
    hf_config = select_layers(teacher.source.hf_config, source.layers)
    kept = ", ".join(map(str, source.layers))
    params = abstract_decoder(decoder_config(hf_config), dtype)[1]
    if shardings is not None:
        params = _copy_layers(teacher, source.layers, dtype, shardings)
    return _assemble(
        source,
        hf_config,
        params,
        teacher.tokenizer,
        dataclasses.replace(
            teacher.source, name=f"layers {kept} of {teacher.source.name}", hf_config=hf_config
        ),
    )


def _copy_layers(
    teacher: Pretrained, layers: Sequence[int], dtype: DTypeLike, shardings: Shardings
) -> dict[str, Any]:
    """Copies all parameters as `dtype`, of the stacked ones the named layers.

    An explicit copy: the student's buffers are donated to the train step, the teacher's are not.
    """

    def chosen(params: dict[str, Any]) -> dict[str, Any]:
        return keep_layers(teacher.config, params, layers)

    def copy(params: dict[str, Any]) -> dict[str, Any]:
        return jax.tree.map(lambda x: jnp.array(x, dtype, copy=True), chosen(params))

    # The same axes are split whatever the number of layers.
    split = shardings(jax.eval_shape(chosen, teacher.params))
    return jax.jit(copy, out_shardings=split)(teacher.params)


def _from_random(
    source: StudentRandom,
    teacher: Pretrained | None,
    key: Array | None,
    dtype: DTypeLike,
    shardings: Shardings,
) -> Pretrained:
    """Without `key`, as shapes."""
    hf_config = _read_config(source.config)
    config = decoder_config(hf_config)
    origin = ModelSource(name="random weights", hf_config=hf_config)
    tokenizer = None
    if teacher is not None:
        origin = dataclasses.replace(teacher.source, name=origin.name, hf_config=hf_config)
        tokenizer = teacher.tokenizer
    needed = 0 if tokenizer is None else tokenizer_size(tokenizer)
    if needed > config.vocab_size:
        raise ValueError(
            f"student.config has vocab_size {config.vocab_size}, but the teacher's tokenizer has "
            f"{needed} tokens; make it at least that"
        )
    params = abstract_decoder(config, dtype)[1]
    if key is not None:
        params = random_params(config, key, dtype, shardings=shardings(params))
    return _assemble(source, hf_config, params, tokenizer, origin)


def _read_config(config: str | Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(config, str):
        return dict(config)
    return read_config(locate(config, files=CONFIG_FILES))


def _assemble(
    source: StudentLayers | StudentRandom,
    hf_config: Mapping[str, Any],
    params: dict[str, Any],
    tokenizer: PreTrainedTokenizerFast | None,
    origin: ModelSource,
) -> Pretrained:
    config = dataclasses.replace(
        decoder_config(hf_config), compute_dtype=compute_dtype(source), remat=source.remat
    )
    graphdef, _ = abstract_decoder(config)
    return Pretrained(config, graphdef, params, tokenizer, origin)


def compute_dtype(source: Student, platform: str | None = None) -> ComputeDtype:
    """Precision that a student computes in: the given one, or the one the platform (by default
    that of this process) is fast in.
    """
    if source.compute_dtype is not None:
        return source.compute_dtype
    return "bfloat16" if (platform or jax.default_backend()) in ("tpu", "gpu") else "float32"
