"""The counted operations against a count by hand, and the roofline's arithmetic."""

import jax
import jax.numpy as jnp
import pytest

from adakd_jax.axes import Head
from adakd_jax.config import DistillConfig
from adakd_jax.distill import Signals, vocab_distillation_loss
from adakd_jax.models.families import decoder_config
from adakd_jax.planning.collectives import Collective
from adakd_jax.planning.flops import HeadWork, attention_operations, head_operations
from adakd_jax.planning.hardware import CHIPS
from adakd_jax.planning.roofline import roofline, speed
from adakd_jax.planning.work import Operations, step_operations
from tests.planning.conftest import STUDENT, TEACHER

ROWS, LENGTH = 8, 128
# Products beside the weights', per token: angles of the rotation, for both models, and the sum over
# each head that the backward pass of the student's attention starts with.
ANGLES, HEAD_SUMS = 2 * 8, 2 * 2 * 4 * 8


def body(hf):
    """Weights of the layers' products."""
    width, heads = hf["hidden_size"], hf["num_attention_heads"] + hf["num_key_value_heads"]
    attention = 2 * width * heads * hf["head_dim"]
    return hf["num_hidden_layers"] * (attention + 3 * width * hf["intermediate_size"])


def attention(hf):
    """One forward pass over a row: each token and those before it."""
    size = hf["num_attention_heads"] * hf["head_dim"]
    return 4 * hf["num_hidden_layers"] * size * LENGTH * (LENGTH + 1) / 2


@pytest.mark.parametrize(
    ("changes", "heads"),
    [
        ({}, 2 * (6 * 16 + 2 * 32) - 4 * 16),  # ranked: both logits twice, the gradient once
        ({"distill": {"focus": {"kind": "all"}, "temperature": {"kind": "fixed"},
                      "score": {"kind": "uniform"}}}, 6 * 16 + 2 * 32),
        ({"response_share": 0.25}, 0.25 * (8 * 16 + 4 * 32)),
        ({"distill": {"keep_logits": "float32"}}, 6 * 16 + 2 * 32),
    ],
)  # fmt: skip
def test_a_step_is_counted_as_by_hand(planned, changes, heads):
    config = planned("cpu:1", **changes)
    counted = step_operations(config, (1, ROWS))
    by_hand = ROWS * (
        LENGTH * (2 * body(TEACHER) + 6 * body(STUDENT) + 64 * heads + ANGLES + HEAD_SUMS)
        + attention(TEACHER)
        + 3 * attention(STUDENT)
    )
    assert counted.needed == pytest.approx(by_hand, rel=1e-9)
    assert counted.executed == pytest.approx(by_hand + 1.5 * ROWS * attention(STUDENT), rel=1e-9)


def test_a_frozen_head_has_no_gradient(planned):
    """Of two shares of answers the bodies are the same, whatever adapters cost in them."""
    student = {"kind": "random", "config": STUDENT, "remat": "none", "lora": {"rank": 2}}
    whole, half = (
        step_operations(planned("cpu:1", student=student, response_share=share), (1, ROWS))
        for share in (1.0, 0.5)
    )
    per_token = 2 * (4 * 16 + 2 * 32) - 2 * 16  # ranked: forward twice, hidden states' once
    expected = 0.5 * ROWS * LENGTH * 64 * per_token
    assert whole.needed - half.needed == pytest.approx(expected, rel=1e-9)


def test_the_compiler_makes_no_gradient_of_a_frozen_head():
    vocabulary, width, tokens = 96, 32, 64
    config = DistillConfig.model_validate(
        {"focus": {"kind": "all"}, "temperature": {"kind": "fixed"}, "score": {"kind": "uniform"}}
    )

    def loss(hidden, weight):
        head, signals = Head(weight, vocabulary), Signals(jnp.float32(1.0), jnp.float32(0.0))
        labels = jnp.zeros(tokens, jnp.int32)
        return vocab_distillation_loss(
            config, hidden, head, hidden, head, labels, signals, chunk_size=tokens
        )[0]

    shapes = [jax.ShapeDtypeStruct((size, width), jnp.float32) for size in (tokens, vocabulary)]
    trained, frozen = (
        jax.jit(jax.grad(loss, wanted)).lower(*shapes).compile() for wanted in ((0, 1), (0,))
    )
    spared = head_operations(HeadWork(), width, width, vocabulary) - head_operations(
        HeadWork(trains_head=False), width, width, vocabulary
    )
    found = trained.cost_analysis()["flops"] - frozen.cost_analysis()["flops"]
    assert tokens * spared <= found < 1.1 * tokens * spared
    weight = 4 * vocabulary * width
    held = [
        c.memory_analysis().temp_size_in_bytes + c.memory_analysis().output_size_in_bytes
        for c in (trained, frozen)
    ]
    assert held[0] - held[1] >= weight


def test_micro_batches_do_the_same_and_remat_does_more(planned):
    once = step_operations(planned("cpu:1"), (1, ROWS))
    assert step_operations(planned("cpu:1"), (4, ROWS // 4)) == once
    student = {"kind": "random", "config": STUDENT, "remat": "full"}
    full = step_operations(planned("cpu:1", student=student), (1, ROWS))
    assert full.needed == once.needed
    again = full.executed - once.executed
    # At most the whole forward pass of the student's body and attention.
    whole = ROWS * (LENGTH * 2 * body(STUDENT) + attention(STUDENT))
    assert 0.7 * whole < again <= whole


def test_a_window_leaves_out_what_it_does_not_see():
    hf = {**TEACHER, "model_type": "mistral", "sliding_window": 3}
    config = decoder_config(hf)
    per_layer = 4 * config.num_heads * config.head_dim
    assert attention_operations(config, 5) == per_layer * 3 * (1 + 2 + 3 + 3 + 3)


def collective(sent, links, network):
    return Collective("all-gather", ("fsdp",), 4, 1.0, sent / 3, sent, network, links)


def test_roofline():
    chip = CHIPS["v5e"]
    times = roofline(
        chip,
        16,
        Operations(needed=16 * 98.5e12, executed=16 * 197e12),
        moved=819e9 / 2,
        collectives=[collective(50e9, 1, 0.0), collective(50e9, 2, 0.0),
                     collective(3.125e9, 1, 3.125e9)],
    )  # fmt: skip
    assert times == pytest.approx((1.0, 0.5, 1.5, 1.0))
    assert (times.bound, times.overlapped, times.in_turn) == ("links", 1.5, 4.0)


def test_speed_of_a_run():
    work = Operations(needed=16 * 98.5e12, executed=0.0)
    found = speed(0.5, 4096, work, CHIPS["v5e"], 16, steps=86_400)
    assert found == (0.5, 8192.0, 1.0, 0.5, 192.0)
    unknown = speed(1.0, 4096, work, CHIPS["v5e"], 16, steps=None)
    assert unknown.mfu == 0.5 and unknown.days is None and unknown.chip_hours is None


def test_the_two_devices_of_a_chip_share_it():
    chip = CHIPS["tpu7x"]
    times = roofline(chip, 1, Operations(0.0, 0.0), chip.hbm_bandwidth, [])
    assert times.memory == 2.0
