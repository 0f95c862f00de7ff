"""Reads, makes and writes models on meshes of eight devices: `python -m tests.hf.mesh_weights DIR`.

Eight devices need a process of their own: their number is fixed when JAX starts. Fails with an
assertion, or prints `done`.
"""

import os
import sys

from tests.own_process import with_devices

if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = with_devices(8)

from pathlib import Path

import jax
import numpy as np
from flax import nnx

from adakd_jax.config import MeshConfig, StudentCheckpoint, StudentLayers, StudentRandom
from adakd_jax.hf import shards
from adakd_jax.hf.load import load_pretrained
from adakd_jax.hf.pretrained import ModelSource, Pretrained
from adakd_jax.hf.student import init_student
from adakd_jax.hf.write import save_weights
from adakd_jax.models.decoder import random_params
from adakd_jax.models.families import decoder_config
from adakd_jax.models.quantized import Quantization, quantize_params
from adakd_jax.sharding import entered, make_mesh, parameter_spec, rules_of, shardings_like

NF4 = Quantization("nf4", 16)
SPLIT = MeshConfig(fsdp=4, tensor=2)
OTHER = MeshConfig(fsdp=2, tensor=2, teacher_rules={"embed": None, "vocab": "fsdp"})
APART = MeshConfig(fsdp=2, expert=2, tensor=2)
GPT2 = dict(model_type="gpt2", vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=16)
LLAMA = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
EXPERTS = LLAMA | {
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 32,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}
# All experts of a layer in one tensor, gate and up by turns.
TOGETHER = LLAMA | {
    "model_type": "gpt_oss",
    "head_dim": 8,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}


def assert_same(got, expected, mesh, rules):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    splits = shardings_like(expected, mesh, rules)
    for a, b, split in zip(*map(jax.tree.leaves, (got, expected, splits)), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
        assert a.dtype == b.dtype and a.sharding.is_equivalent_to(split, a.ndim), a.sharding


def check_weights(hf_config, folder, mesh_config, rounded=()):
    """Read in shards, and written from them, a model is the same; rounded, as on one device."""
    config = decoder_config(hf_config)
    params = random_params(config, jax.random.key(0))
    (file, *_) = save_weights(config, params, hf_config, folder / "whole")
    mesh, rules = make_mesh(mesh_config), rules_of(mesh_config, "teacher")
    options = {"mesh": mesh, "rules": lambda path: parameter_spec(path, rules)}
    read = load_pretrained(folder / "whole", **options)
    assert_same(read.params, params, mesh, rules)
    with entered(mesh):  # as the end of a run does
        (again, *_) = save_weights(config, read.params, hf_config, folder / "again")
    assert again.read_bytes() == file.read_bytes()
    for how in rounded:
        model = load_pretrained(folder / "whole", quantization=how, **options)
        assert_same(model.params, quantize_params(params, how), mesh, rules)
    return Pretrained(config, read.graphdef, params, None, ModelSource("tiny", hf_config))


def check_students(teacher, folder):
    """A student of any kind starts in its shards, from the numbers of one device."""
    mesh, rules = make_mesh(SPLIT), rules_of(SPLIT, "student")
    for source in (
        StudentLayers(layers=(0, 2)),
        StudentRandom(config=LLAMA),
        StudentCheckpoint(path=str(folder / "whole")),
    ):
        expected = init_student(source, teacher, jax.random.key(3))
        split = init_student(source, teacher, jax.random.key(3), mesh=mesh, rules=rules)
        assert_same(split.params, expected.params, mesh, rules)


def check_rounded_model(model):
    """Hidden states of rounded kernels on a mesh are those of one device."""
    tokens = np.arange(64).reshape(8, 8) % 61
    inputs = tokens, tokens % 8, np.ones_like(tokens)
    mesh, rules = make_mesh(SPLIT), rules_of(SPLIT, "teacher")
    hidden = jax.jit(lambda params: nnx.merge(model.graphdef, params)(*inputs))
    params = quantize_params(model.params, NF4)
    placed = jax.device_put(params, shardings_like(params, mesh, rules))
    with entered(mesh):
        # Compiled ahead, as the train step is.
        split = hidden.lower(placed).compile()(placed)
    np.testing.assert_allclose(split, hidden(params), atol=1e-5)


def main():
    """Runs all checks."""
    folder = Path(sys.argv[1])
    shards.BLOCK_BYTES = 512  # several blocks of every tensor
    check_weights(GPT2, folder / "gpt2", SPLIT)
    teacher = check_weights(LLAMA, folder / "llama", OTHER, (Quantization("int8"), NF4))
    check_students(teacher, folder / "llama")
    check_rounded_model(teacher)
    experts = check_weights(EXPERTS, folder / "experts", APART, (Quantization("int8"), NF4))
    check_rounded_model(experts)
    check_weights(TOGETHER, folder / "together", APART, (Quantization("int8"),))
    print("done")


if __name__ == "__main__":
    main()
