"""Floating-point operations that a training step cannot do without, counted by hand.

Products of matrices only, two operations a multiply-add; elementwise work and everything that
padding costs is not counted. So `operations / seconds / peak` is a share of the machine that a
slower or wasteful step cannot inflate.
"""

import math
from typing import NamedTuple

import numpy as np

from adakd_jax.planning.flops import HeadWork as Method
from adakd_jax.planning.flops import head_operations
from benchmarks.cases import (
    FEED_FORWARD,
    HEAD_DIM,
    HEADS,
    IGNORE,
    KV_HEADS,
    STUDENT_LAYERS,
    TEACHER_LAYERS,
    VOCABULARY,
    WIDTH,
    Batch,
)


class Shape(NamedTuple):
    """One model of a pair, as far as its products go.

    Attributes:
        body: weights of the layers, without embeddings.
        width: D, the width of its hidden states.
        attention: query heads × head dim × layers.
    """

    body: int
    width: int
    attention: int


def shape_of(
    layers: int, width: int, feed_forward: int, heads: int, kv_heads: int, head_dim: int
) -> Shape:
    """Shape of a decoder with grouped-query attention and a gated feed-forward."""
    attention = 2 * width * (heads + kv_heads) * head_dim
    return Shape(layers * (attention + 3 * width * feed_forward), width, layers * heads * head_dim)


TEACHER, STUDENT = (
    shape_of(layers, WIDTH, FEED_FORWARD, HEADS, KV_HEADS, HEAD_DIM)
    for layers in (TEACHER_LAYERS, STUDENT_LAYERS)
)
# Qwen2-7B and Qwen2-1.5B.
LARGE_TEACHER = shape_of(28, 3584, 18_944, 28, 4, 128)
LARGE_STUDENT = shape_of(28, 1536, 8960, 12, 2, 128)
LARGE_VOCABULARY = 151_936


def step_operations(
    batch: Batch,
    method: Method,
    student: Shape = STUDENT,
    teacher: Shape = TEACHER,
    vocabulary: int = VOCABULARY,
) -> float:
    """Operations of teacher forward, student forward and backward, and loss on the tokens that
    exist; attention looks back over its own document only.
    """
    tokens = int((batch.segments > 0).sum())
    pairs = _attended_pairs(batch.segments)
    bodies = tokens * (2.0 * teacher.body + 6.0 * student.body)
    attention = pairs * (4.0 * teacher.attention + 12.0 * student.attention)
    responses = int((batch.labels != IGNORE).sum())
    heads = head_operations(method, student.width, teacher.width, vocabulary)
    return bodies + attention + responses * heads


def _attended_pairs(segments: np.ndarray) -> int:
    """Pairs of a token and one at or before it, in the same document."""
    lengths = [
        int((row == document).sum()) for row in segments for document in np.unique(row[row > 0])
    ]
    return sum(math.comb(length + 1, 2) for length in lengths)


def large_loss_ratio(method: Method) -> float:
    """Operations of the loss of a Qwen2-7B → 1.5B step with `method`, over those of the plain."""
    widths = LARGE_STUDENT.width, LARGE_TEACHER.width, LARGE_VOCABULARY
    return head_operations(method, *widths) / head_operations(Method(), *widths)


def overhead(loss_ratio: float, response_share: float) -> float:
    """A Qwen2-7B → 1.5B step over one of plain distillation, less 1, in operations.

    Attention is left out: it is the same in both, and small at a length of 512.

    Args:
        loss_ratio: the loss over that of plain distillation, counted or measured.
        response_share: of all tokens.
    """
    bodies = 2.0 * LARGE_TEACHER.body + 6.0 * LARGE_STUDENT.body
    plain = response_share * head_operations(
        Method(), LARGE_STUDENT.width, LARGE_TEACHER.width, LARGE_VOCABULARY
    )
    return (loss_ratio - 1.0) * plain / (bodies + plain)
