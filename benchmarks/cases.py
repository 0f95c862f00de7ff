"""What every contender trains: model shapes and batches. NumPy alone, so that it runs in any
contender's environment.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

IGNORE = -100
WIDTH, FEED_FORWARD, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = 576, 1536, 9, 3, 64, 49_152
TEACHER_LAYERS, STUDENT_LAYERS = 30, 10
LEARNING_RATE = 1e-4
# The real teacher as a Hugging Face folder, for generation; not in git.
EXPORTED_TEACHER = Path(__file__).parent / ".teacher"


def llama_config(layers: int) -> dict[str, object]:
    """Hugging Face configuration of SmolLM2-135M with `layers` layers; the weights are random."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100_000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
    }


class Setting(NamedTuple):
    """What a contender trains or asks, and with what.

    Attributes:
        teacher: its config.json; for generation, the model's folder as `path`.
        student: its config.json.
        dtype: of products and of weights that are not trained; what is trained is float32.
        device: "cpu", or "cuda" for torch; JAX takes the device that it finds.
        lora: rank, alpha, dropout and targets of the student's adapters, or None.
    """

    teacher: dict[str, object]
    student: dict[str, object]
    dtype: str = "float32"
    device: str = "cpu"
    lora: dict[str, object] | None = None


class Batch(NamedTuple):
    """One training step's data, int32 [B, T] each.

    `labels[b, t]` is the token after `tokens[b, t]` if that is a response token, else −100: logits
    and labels are aligned already. `positions` restart in each document, `segments` number the
    documents of a row from 1; 0 is padding.
    """

    tokens: np.ndarray
    labels: np.ndarray
    positions: np.ndarray
    segments: np.ndarray

    @property
    def response_tokens(self) -> int:
        """Tokens that carry loss."""
        return int((self.labels != IGNORE).sum())


def smollm2(dtype: str = "float32", device: str = "cpu", layers: int = STUDENT_LAYERS) -> Setting:
    """SmolLM2-135M's shape and some layers of it."""
    return Setting(llama_config(TEACHER_LAYERS), llama_config(layers), dtype, device)


def full_rows(rows: int, length: int, seed: int = 0, vocabulary: int = VOCABULARY) -> Batch:
    """Random documents of exactly `length` tokens, all of them response tokens."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, vocabulary, (rows, length + 1), dtype=np.int32)
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length)).copy()
    return Batch(tokens[:, :-1].copy(), tokens[:, 1:].copy(), positions, np.ones_like(positions))


def save_batches(path: Path, batches: list[Batch]) -> None:
    """Write batches to one .npz file."""
    arrays = {
        f"{index}/{name}": array
        for index, batch in enumerate(batches)
        for name, array in batch._asdict().items()
        if array is not None
    }
    np.savez_compressed(path, count=len(batches), **arrays)


def load_batches(path: Path) -> list[Batch]:
    """Read what `save_batches` wrote."""
    with np.load(path) as stored:
        return [
            Batch(*(stored[f"{index}/{name}"] for name in Batch._fields))
            for index in range(int(stored["count"]))
        ]
