"""Logits on the device against those of the CPU: every family, and the real teacher."""

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from adakd_jax.hf.load import load_pretrained
from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.decoder import abstract_decoder, random_params
from adakd_jax.models.families import decoder_config
from adakd_jax.models.output import logits
from benchmarks.gpu.device import cpu
from benchmarks.gpu.options import Options, Row, attempt
from benchmarks.gpu.tiny_models import TINY

# Relative distances ‖device − CPU‖ / ‖CPU‖ that rounding explains.
LIMITS = {"float32": 1e-4, "bfloat16": 5e-2}
TEXT = "The capital of France is Paris, the capital of Japan is Tokyo, and the capital of Kenya is"


def families(options: Options) -> Iterator[Row]:
    """A tiny model of each family, random weights, two packed documents a row. Families compile at
    the same time: that, not computing, is what takes long.
    """
    with ThreadPoolExecutor(1 if options.small else 8) as pool:
        tried = {name: pool.submit(attempt, name, lambda n=name: _family(n)) for name in TINY}
        for future in tried.values():
            yield future.result()


def _family(name: str) -> Row:
    config = decoder_config(TINY[name])
    params = _noisy(config)
    length = 48
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, config.vocab_size, (2, length))
    segments = np.repeat([1, 2, 0], [20, 24, 4])[None].repeat(2, axis=0)
    positions = np.concatenate([np.arange(20), np.arange(24), np.arange(4)])[None].repeat(2, axis=0)
    return _compared(config, params, (tokens, positions, segments))


def _noisy(config: DecoderConfig) -> Any:
    """Random weights, those of norms and biases too."""
    with jax.default_device(cpu()):
        params = random_params(config, jax.random.key(0))
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: np.asarray(x) + rng.normal(0.0, 0.1, x.shape).astype(np.float32), params
    )


def _compared(config: DecoderConfig, params: Any, inputs: tuple[np.ndarray, ...]) -> Row:
    """Distance of the logits of real tokens from the CPU's, in both precisions."""
    real = inputs[2] > 0
    reference = _logits(config, params, inputs, "float32", cpu())[real]
    row: Row = {}
    for dtype in LIMITS:
        found = _logits(config, params, inputs, dtype, jax.local_devices()[0])[real]
        row[dtype] = distance(found, reference)
        row[f"{dtype}_same_top1"] = float((found.argmax(-1) == reference.argmax(-1)).mean())
    return row | {"passed": all(row[dtype] <= limit for dtype, limit in LIMITS.items())}


def distance(found: Any, reference: Any) -> float:
    """‖found − reference‖ / ‖reference‖, in float64."""
    found, reference = (np.asarray(x, np.float64) for x in (found, reference))
    return float(np.linalg.norm(found - reference) / np.linalg.norm(reference))


def _logits(
    config: DecoderConfig, params: Any, inputs: tuple[np.ndarray, ...], dtype: str, device: Any
) -> np.ndarray:
    """On a device; on the CPU by the formula as written, elsewhere as a run would choose."""
    how: Any = "xla" if device == cpu() else None
    chosen = dataclasses.replace(config, compute_dtype=dtype, attention_implementation=how)
    graph = abstract_decoder(chosen)[0]

    def forward(params: Any, *arrays: jax.Array) -> jax.Array:
        model = nnx.merge(graph, params)
        return logits(model(*arrays), model.head())

    precision = "highest" if dtype == "float32" else None
    with jax.default_matmul_precision(precision):  # type: ignore[arg-type]
        placed = jax.device_put((params, *(np.asarray(x, np.int32) for x in inputs)), device)
        return np.asarray(jax.jit(forward)(*placed), np.float32)


def smollm2(options: Options) -> Iterator[Row]:
    """The real teacher on a sentence: distances, and the next token."""
    yield attempt("SmolLM2-135M-Instruct", lambda: _smollm2(options))


def _smollm2(options: Options) -> Row:
    with jax.default_device(cpu()):
        model = load_pretrained(options.teacher, dtype=jnp.float32)
    assert model.tokenizer is not None
    tokens = np.asarray(model.tokenizer(TEXT)["input_ids"], np.int32)[None]
    positions = np.arange(tokens.shape[1])[None]
    params = jax.device_get(model.params)
    return _compared(model.config, params, (tokens, positions, np.ones_like(tokens)))
