"""Generation and likelihood on meshes of eight devices: `python -m tests.eval.on_mesh`.

Eight devices need a process of their own. Prints, as JSON by mesh, whether answers are those of one
device, how far likelihoods are off, and what crosses devices for each token.
"""

import json
import os
import re
from unittest import mock

from tests.own_process import with_devices

if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = with_devices(8)

import dataclasses

import jax
import numpy as np

from adakd_jax.axes import IGNORE, TokenBatch
from adakd_jax.config import GenerationConfig, MeshConfig
from adakd_jax.eval import decode, decoding_weights
from adakd_jax.eval.generate import generate
from adakd_jax.eval.likelihood import document_sums
from adakd_jax.models.decoder import abstract_decoder, random_params
from adakd_jax.sharding import entered, make_mesh, rules_of, shardings_like
from adakd_jax.teacher_cache.weights import _distributions
from tests.eval.tiny import TINY

MODEL = dataclasses.replace(TINY, vocab_size=64)
MESHES = {
    "data": MeshConfig(),
    "fsdp": MeshConfig(fsdp=8),
    "all": MeshConfig(fsdp=2, tensor=2),
    "no room": MeshConfig(fsdp=4),
}
SETTINGS = {
    "greedy": GenerationConfig(max_new_tokens=20, batch_size=4, repetition_penalty=1.3),
    "sampled": GenerationConfig(max_new_tokens=20, batch_size=4, temperature=1.0, top_p=0.9),
}
ENDS = (3, 17)  # so that rows, and devices, end at different times


def answers(graphdef, params):
    """Of eleven prompts: more than a batch, and not as many as devices divide."""
    rng = np.random.default_rng(0)
    prompts = [rng.integers(64, size=n).tolist() for n in (5, 1, 13, 9, 16, 2, 30, 7, 8, 4, 11)]
    return {
        name: generate(graphdef, params, prompts, settings, eos_ids=ENDS, pad_id=0, seed=5)
        for name, settings in SETTINGS.items()
    }


def sums(graphdef, params, teacher):
    """Of three rows, which no mesh here divides."""
    rng = np.random.default_rng(1)
    shape = (3, 24)
    segments = np.repeat([[1, 2, 0]], 3, axis=0).repeat([10, 9, 5], axis=1)
    positions = np.tile(np.r_[np.arange(10), np.arange(9), np.arange(5)], (3, 1))
    labels = np.where(rng.random(shape) < 0.5, rng.integers(64, size=shape), IGNORE)
    labels = np.where(segments > 0, labels, IGNORE)
    arrays = rng.integers(64, size=shape), labels, positions, segments
    batch = TokenBatch(*(array.astype(np.int32) for array in arrays))
    found = document_sums(graphdef, params, graphdef, teacher, [batch], chunk_size=5)
    return np.concatenate([found.sums.ravel(), found.calibration.confidence.ravel()])


def kept(graphdef, params):
    """What a cache keeps of a teacher at the tokens of eight rows."""
    rng = np.random.default_rng(2)
    tokens = rng.integers(64, size=(8, 12)).astype(np.int32)
    labels = np.where(rng.random((8, 12)) < 0.5, tokens, IGNORE).astype(np.int32)
    positions = np.tile(np.arange(12, dtype=np.int32), (8, 1))
    batch = TokenBatch(tokens, labels, positions, np.ones_like(tokens))
    return jax.device_get(_distributions(graphdef, 5, 60, params, batch))


class Watched:
    """Notes the programs of decoding as they are compiled."""

    def __init__(self):
        self._continue, self.texts = decode._continue, []

    def __call__(self, *arguments):
        self.texts.append(self._continue.lower(*arguments).compile().as_text())
        return self._continue(*arguments)

    def collectives(self):
        """Kinds of what devices exchange within the loop over tokens."""
        kinds = (
            r" (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\("
        )
        inside = [re.split(r"\nENTRY", text)[0] for text in self.texts]
        return sorted({kind for text in inside for kind in re.findall(kinds, text)})


def main():
    graphdef, _ = abstract_decoder(MODEL)
    params, teacher = (random_params(MODEL, jax.random.key(seed)) for seed in (3, 4))
    alone, measured = answers(graphdef, params), sums(graphdef, params, teacher)
    taught = kept(graphdef, teacher)
    found = {"lengths": sorted({len(answer) for answer in alone["sampled"]})}
    for name, config in MESHES.items():
        mesh, watched = make_mesh(config), Watched()
        room = mock.patch.object(decoding_weights, "_have_room_for", return_value=name != "no room")
        with entered(mesh), room, mock.patch.object(decode, "_continue", watched):
            split = shardings_like(params, mesh, rules_of(config, "student"))
            placed = [jax.device_put(each, split) for each in (params, teacher)]
            shared = answers(graphdef, placed[0])
            cached = kept(graphdef, placed[1])
            error = np.abs(sums(graphdef, *placed) - measured) / np.maximum(np.abs(measured), 1)
        same = {how: shared[how] == alone[how] for how in SETTINGS}
        found[name] = {
            **same,
            "likelihood": float(error.max()),
            "cached": max(float(np.abs(a - b).max()) for a, b in zip(cached, taught, strict=True)),
            "exchanged": watched.collectives(),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
