"""Reads GGUF files, the format of llama.cpp, without torch: tensors under Hugging Face names."""

import dataclasses
import functools
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from adakd_jax.hf.gguf_config import RopeFactors, gguf_family, gguf_hf_config, left_out_layers
from adakd_jax.hf.gguf_file import naming, open_parts
from adakd_jax.hf.gguf_tensors import Stored, hf_shape, stored_tensors
from adakd_jax.hf.gguf_tokenizer import gguf_tokenizer
from adakd_jax.hf.keymap import is_left_out
from adakd_jax.hf.pretrained import ModelSource, Pretrained
from adakd_jax.hf.weights import params_from_tensors
from adakd_jax.models.config import Remat
from adakd_jax.models.decoder import abstract_decoder
from adakd_jax.models.families import decoder_config
from adakd_jax.models.gguf_family import Gguf

_ROPE_FACTORS = ("rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight")


def load_gguf(
    path: str | Path,
    *,
    dtype: DTypeLike = jnp.float32,
    compute_dtype: DTypeLike | None = None,
    remat: Remat = "none",
    weights: bool = True,
    **placing: Any,
) -> Pretrained:
    """Loads a model and its tokenizer from a GGUF file, dequantised one tensor at a time.

    Args:
      path: the file; of a model that is split, any of its files, the others beside it.
      dtype: of the parameters.
      compute_dtype: of activations and matrix products; the parameters' if None.
      remat: what the backward pass computes again: "none", "dots" or "full".
      weights: False reads none: `params` are shapes.
      **placing: `place` and `quantization`, see `params_from_tensors`.

    Raises:
      ModelFileError: not a whole GGUF file, a part of a model without the others, or of an
        architecture, rotary scaling or tokenizer that is not supported.
      WeightsError: missing, extra and mis-shaped tensors, all together, under their Hugging Face
        names; a tensor without such a name is called as in the file.
    """
    computed_in = jnp.dtype(dtype if compute_dtype is None else compute_dtype).name
    with open_gguf(path) as file:
        config = dataclasses.replace(
            decoder_config(file.hf_config), compute_dtype=computed_in, remat=remat
        )
        with naming(Path(path)):
            tokenizer = gguf_tokenizer(file.metadata)
        graphdef, params = abstract_decoder(config, dtype)
        if weights:
            if any(map(is_left_out, file.shapes)):
                warnings.warn(
                    f"{path}: left out is mtp, which guesses the tokens after the next",
                    stacklevel=2,
                )
            # Every part of a tensor that is asked for comes out of one dequantisation.
            whole = functools.lru_cache(maxsize=1)(file.read)
            params = params_from_tensors(
                config,
                file.shapes,
                lambda name, index: (
                    # Of all experts, those that are asked for are dequantised.
                    file.read(name, index[0])[(slice(None), *index[1:])]
                    if file.holds_experts(name)
                    else whole(name)[index]
                ),
                dtype=dtype,
                source=str(path),
                **placing,
            )
    source = ModelSource(
        name=Path(path).name,
        hf_config=file.hf_config,
        licence=file.metadata.get("general.license"),
        generation_config=_generation_config(file.metadata),
        chat_template=file.metadata.get("tokenizer.chat_template"),
    )
    return Pretrained(config, graphdef, params, tokenizer, source)


def _generation_config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Special ids; a chat model's end of turn ends its answers as well as the end of the text."""
    bos, eos, turn = (
        metadata.get(f"tokenizer.ggml.{role}_token_id") for role in ("bos", "eos", "eot")
    )
    pad = metadata.get("tokenizer.ggml.padding_token_id", eos)
    ends = [end for end in dict.fromkeys((eos, turn)) if end is not None]
    ids = {
        "bos_token_id": bos,
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
        "pad_token_id": pad,
    }
    return {name: value for name, value in ids.items() if value is not None}


@dataclass(frozen=True)
class GgufFile:
    """An open GGUF file; valid inside `open_gguf` only.

    `shapes` and `read` speak Hugging Face: its tensor names, [out, in] matrices, query and key rows
    in its order.
    """

    metadata: Mapping[str, Any]
    hf_config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    _gguf: Gguf
    _tensors: Mapping[str, tuple[Stored, ...]]

    def holds_experts(self, name: str) -> bool:
        """Whether a tensor is of all experts, some of which can be read by themselves."""
        return self._tensors[name][0].of_experts

    def read(self, name: str, experts: slice | None = None) -> np.ndarray:
        """One tensor, dequantised to float32 and in Hugging Face's layout.

        Args:
          name: its Hugging Face name.
          experts: which of the experts, for a tensor of all of them; None: all.
        """
        parts = []
        for stored in self._tensors[name]:
            values = stored.dequantised(name, experts)
            values = self._gguf.restore(name, values, self.hf_config)
            parts.append(values.swapaxes(-1, -2) if stored.transposed else values)
        join = self._gguf.join
        return parts[0] if join is None or len(parts) == 1 else join.values(parts, self.hf_config)


@contextmanager
def open_gguf(path: str | Path) -> Iterator[GgufFile]:
    """Opens a GGUF file, with all other files of a model that is split; the memory maps are
    released at the end of the block.

    Raises:
      ModelFileError: not a whole GGUF file, a part without the others, or of a model that is not
        supported.
    """
    metadata, readers = open_parts(Path(path))
    tensors = {tensor.name: tensor for reader in readers for tensor in reader.tensors}
    del readers  # they hold the maps as well
    with naming(Path(path)):
        shapes = {name: tuple(int(n) for n in reversed(t.shape)) for name, t in tensors.items()}
        found = [tensors.pop(name, None) for name in _ROPE_FACTORS]
        factors = RopeFactors(*(None if each is None else each.data for each in found))
        hf_config = gguf_hf_config(metadata, shapes, factors)
        decoder_config(hf_config)
        gguf = gguf_family(metadata)[1]
    stored = stored_tensors(tensors, shapes, gguf, left_out_layers(metadata, gguf))
    hf_shapes = {name: hf_shape(parts, gguf) for name, parts in stored.items()}
    try:
        yield GgufFile(metadata, hf_config, hf_shapes, gguf, stored)
    finally:
        # The map closes with its last view, and the caller may still hold the GgufFile.
        stored.clear()
