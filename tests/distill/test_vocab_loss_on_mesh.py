"""The chunked loss over several devices: the same numbers, and flat memory on a TPU."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from adakd_jax.config.distill import DistillConfig
from adakd_jax.distill import Head, Signals, vocab_distillation_loss
from adakd_jax.planning.hlo import arrays_of, read_program, runs
from tests.own_process import told_by

# Eight devices need a process of their own: the count is fixed when JAX starts.
ON_EIGHT_DEVICES = """
import json, os
from tests.own_process import with_devices
os.environ["XLA_FLAGS"] = with_devices(8)
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from adakd_jax.config.distill import DistillConfig
from adakd_jax.distill import Features, Head, Signals, keep_top, vocab_distillation_loss

rng = np.random.default_rng(0)
rows, length, vocabulary, width = 8, 12, 32, 8
draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
arrays = (
    draw(rows, length, width), draw(vocabulary, width),
    draw(rows, length, width), draw(vocabulary, width),
)
labels = rng.integers(0, vocabulary, (rows, length)).astype(np.int32)
labels[rng.random(labels.shape) < 0.3] = -100
labels[:2] = -100  # a device without a response token
config = DistillConfig(ce_weight=0.3)
signals = Signals(jnp.float32(0.6), jnp.float32(0.5))
traces = []


def numbers(tree):
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]


def loss_on(axes):
    def value(student, weight, teacher, teacher_weight, labels):
        traces.append(1)
        return vocab_distillation_loss(
            config, student, Head(weight, vocabulary), teacher, Head(teacher_weight, vocabulary),
            labels, signals, chunk_size=4, batch_axes=axes,
        )

    return jax.value_and_grad(value, (0, 1), has_aux=True)


def through_temperatures_on(axes, median):
    config = DistillConfig(temperature=dict(kind="idts", median=median, differentiable=True))

    def value(student, weight, teacher, teacher_weight, labels):
        return vocab_distillation_loss(
            config, student, Head(weight, vocabulary), teacher, Head(teacher_weight, vocabulary),
            labels, signals, chunk_size=4, batch_axes=axes, gradient_norms=True,
        )

    return jax.value_and_grad(value, (0, 1), has_aux=True)


def cached_on(axes):
    def value(student, weight, kept, labels):
        return vocab_distillation_loss(
            config, student, Head(weight, vocabulary), None, None, labels, signals,
            cached=kept, chunk_size=4, batch_axes=axes,
        )

    return jax.value_and_grad(value, (0, 1), has_aux=True)


def features_on(axes):
    config = DistillConfig(feature_weight=0.5, features=dict(threshold=0.3))

    def value(student, weight, teacher, teacher_weight, states, projector, labels):
        hidden = jnp.stack([student, jnp.sin(student)], axis=-2)
        given = signals._replace(learned={"projector": projector})
        return vocab_distillation_loss(
            config, student, Head(weight, vocabulary), teacher, Head(teacher_weight, vocabulary),
            labels, given, features=Features(hidden, states), chunk_size=4, batch_axes=axes,
        )

    return jax.value_and_grad(value, (0, 1, 5), has_aux=True)


expected = jax.jit(loss_on(()))(*arrays, labels)
mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
found = {}
with jax.set_mesh(mesh):
    batch = NamedSharding(mesh, P(("data", "fsdp")))
    for name, spec in {
        "whole": P(),
        "vocabulary": P("tensor"),
        "embed": P("fsdp", "tensor"),
        "both": P("tensor", "fsdp"),
    }.items():
        weight = NamedSharding(mesh, spec)
        run = jax.jit(loss_on(("data", "fsdp")), in_shardings=(batch, weight, batch, weight, batch))
        before = len(traces)
        results = run(*arrays, labels)
        run(*arrays, np.where(np.arange(rows)[:, None] % 2, labels, -100))
        assert len(traces) == before + 1, "recompiled"
        found[name] = max(
            float(np.max(np.abs(a - b)) / (1e-6 + np.max(np.abs(b))))
            for a, b in zip(numbers(results), numbers(expected), strict=True)
        )
    for median in ("batch", "row"):
        run = jax.jit(
            through_temperatures_on(("data", "fsdp"), median),
            in_shardings=(batch, weight, batch, weight, batch),
        )
        one = jax.jit(through_temperatures_on((), median))(*arrays, labels)
        assert float(one[0][1].gradient_norms.max()) > 0
        found[f"through temperatures, median of a {median}"] = max(
            float(np.max(np.abs(a - b)) / (1e-6 + np.max(np.abs(b))))
            for a, b in zip(numbers(run(*arrays, labels)), numbers(one), strict=True)
        )
    kept = keep_top(jnp.asarray(arrays[2] @ arrays[3].T), jnp.maximum(labels, 0), 5)
    kept = jax.tree.map(np.asarray, kept)
    weight = NamedSharding(mesh, P("tensor", "fsdp"))
    run = jax.jit(cached_on(("data", "fsdp")), in_shardings=(batch, weight, batch, batch))
    expected = jax.jit(cached_on(()))(*arrays[:2], kept, labels)
    found["cached teacher"] = max(
        float(np.max(np.abs(a - b)) / (1e-6 + np.max(np.abs(b))))
        for a, b in zip(
            numbers(run(*arrays[:2], kept, labels)), numbers(expected), strict=True
        )
    )
    inputs = *arrays, draw(rows, length, 2, 6), draw(width, 6), labels
    shardings = batch, weight, batch, weight, batch, NamedSharding(mesh, P()), batch
    results = jax.jit(features_on(("data", "fsdp")), in_shardings=shardings)(*inputs)
    expected = jax.jit(features_on(()))(*inputs)
    assert int(expected[0][1].hard.sum()) > 20 and float(np.abs(expected[1][2]).max()) > 0
    found["features"] = max(
        float(np.max(np.abs(a - b)) / (1e-6 + np.max(np.abs(b))))
        for a, b in zip(numbers(results), numbers(expected), strict=True)
    )
print(json.dumps(found))
"""


@pytest.mark.slow
def test_every_sharding_of_the_head_gives_the_loss_of_one_device():
    errors = told_by("-c", ON_EIGHT_DEVICES)
    names = {"whole", "vocabulary", "embed", "both", "cached teacher", "features"}
    names |= {f"through temperatures, median of a {median}" for median in ("batch", "row")}
    assert set(errors) == names
    assert max(errors.values()) < 1e-5, errors


@pytest.fixture
def tpu_pod(libtpu):
    """Sixteen TPU v5e that are not there: enough to compile for."""
    return topologies.get_topology_desc("v5e:4x4", platform="tpu").devices


VOCABULARY, STUDENT, TEACHER = 151_936, 1536, 3584


def compile_loss_stage(devices, tensor, tokens):
    """Qwen2's heads in bfloat16, chunk 256, AdaKD, for `tokens` on each of 16 devices."""
    shards = 16 // tensor
    auto = (AxisType.Auto, AxisType.Auto)
    mesh = Mesh(np.array(devices).reshape(shards, tensor), ("data", "tensor"), axis_types=auto)

    def shape(dims, dtype, *spec):
        return jax.ShapeDtypeStruct(dims, dtype, sharding=NamedSharding(mesh, P(*spec)))

    def value(student, weight, teacher, teacher_weight, labels, ratio):
        return vocab_distillation_loss(
            DistillConfig(),
            student,
            Head(weight, VOCABULARY),
            teacher,
            Head(teacher_weight, VOCABULARY),
            labels,
            Signals(ratio, jnp.float32(0.5)),
            chunk_size=256,
            batch_axes=("data",),
        )

    rows = "tensor" if tensor > 1 else "data"
    with jax.set_mesh(mesh):
        lowered = jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True)).lower(
            shape((shards, tokens, STUDENT), jnp.bfloat16, "data"),
            shape((VOCABULARY, STUDENT), jnp.bfloat16, rows),
            shape((shards, tokens, TEACHER), jnp.bfloat16, "data"),
            shape((VOCABULARY, TEACHER), jnp.bfloat16, rows),
            shape((shards, tokens), jnp.int32, "data"),
            shape((), jnp.float32),
        )
        return lowered.compile()


def temporaries(compiled):
    """GiB that a program needs besides its arguments and results.

    Not `temp_size_in_bytes`: libtpu counts the arrays of a loop's body twice in it, in every
    version; programs for which it exceeds the device's memory compile, and fit.
    """
    found = compiled.memory_analysis()
    held = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return (found.peak_memory_in_bytes - held) / 2**30


def of_a_whole_head(text, rows):
    """What the rounds of a compiled loss write to memory as large as a head: (opcode, shape)."""
    program = read_program(text)
    bodies = {run.instruction.called("body")[0] for run in runs(program, 1.0) if
              run.instruction.opcode == "while"}  # fmt: skip
    return {
        (one.opcode, one.shape.partition("{")[0])
        for name in bodies
        for one in program.computations[name].values()
        if re.match(rf"\w+\[{rows},({STUDENT}|{TEACHER})\]", one.shape)
        and one.opcode not in ("parameter", "get-tuple-element", "bitcast")
        and arrays_of(one.shape)[0].in_memory  # not what is read ahead into faster memory
    }


@pytest.mark.slow
@pytest.mark.parametrize(("tensor", "limit"), [(1, 2.62), (4, 0.32)])
def test_memory_on_a_tpu_does_not_grow_with_the_tokens(tpu_pod, tensor, limit):
    """Both heads, the float32 gradient of the student's, and two arrays [C, V]. Older compilers
    put one of these into the space of the result, the newer ones only if memory is short.
    """
    found = []
    for tokens in (2048, 32_768):
        compiled = compile_loss_stage(tpu_pod, tensor, tokens)
        found.append(temporaries(compiled))
        # The product that adds to the float32 gradient in place, and nothing else: no copy of it,
        # and no head converted once more.
        rounds = of_a_whole_head(compiled.as_text(), VOCABULARY // tensor)
        assert rounds == {("fusion", f"f32[{VOCABULARY // tensor},{STUDENT}]")}
        rows = {
            int(dims.split(",")[0])
            for dims in re.findall(rf"\w+\[(\d+,{VOCABULARY // tensor})\]", compiled.as_text())
        }
        assert rows <= {256}, "an array of tokens × vocabulary"
    assert max(found) < limit and max(found) / min(found) < 1.05, found
