"""One example's share of a cache as bytes."""

import dataclasses
import hashlib

import ml_dtypes
import numpy as np
from jaxtyping import Int

from adakd_jax.axes import CachedTeacher
from adakd_jax.data.tokenize import Example

DIGEST_BYTES = 16
_DTYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_TAIL = np.dtype("<f4")


class RecordError(ValueError):
    """Bytes that are not the record that was asked for."""


@dataclasses.dataclass(frozen=True)
class Form:
    """How the records of a cache are written: k tokens out of a vocabulary, and a float type.

    A record is the digest of its example, then of its n response tokens the ids [n, k], the
    log-probabilities [n, k] and the tails [n]; little-endian. Ids and log-probabilities are kept
    plane by plane (all high bytes, then all low bytes), which compresses better.
    """

    k: int
    vocabulary: int
    dtype: str

    @property
    def ids(self) -> np.dtype:
        """The smallest type that holds an id."""
        return np.dtype("<u2" if self.vocabulary <= 2**16 else "<u4")

    @property
    def log_probs(self) -> np.dtype:
        """Of the log-probabilities; of the tails it is float32."""
        return _DTYPES[self.dtype]

    @property
    def bytes_per_token(self) -> int:
        """Before compression."""
        return self.k * (self.ids.itemsize + self.log_probs.itemsize) + _TAIL.itemsize

    def rounded(self, taught: CachedTeacher) -> CachedTeacher:
        """What is read again of what is written."""
        narrow = np.asarray(taught.log_probs).astype(self.log_probs).astype(np.float32)
        return taught._replace(log_probs=narrow)


def example_digest(example: Example) -> bytes:
    """Names an example by its tokens and targets: all that a teacher's distributions depend on."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    digest.update(np.asarray(example.tokens, "<i4").tobytes())
    digest.update(np.asarray(example.targets, bool).tobytes())
    return digest.digest()


def response_places(example: Example) -> Int[np.ndarray, " n"]:
    """Positions whose next token is learned; their labels are `tokens[places + 1]`."""
    return np.flatnonzero(example.targets[1:])


def to_bytes(form: Form, example: Example, taught: CachedTeacher) -> bytes:
    """Writes a record.

    Args:
      form: of the cache.
      example: what the teacher has seen.
      taught: NumPy arrays [n, k], [n, k] and [n], one entry a response token.

    Raises:
      RecordError: the teacher's answer is not one to this example.
    """
    _check(form, example, taught)
    narrow = np.asarray(taught.log_probs, np.float32).astype(form.log_probs)
    planes = _planes(np.asarray(taught.ids).astype(form.ids)) + _planes(narrow)
    return example_digest(example) + planes + np.asarray(taught.tail, _TAIL).tobytes()


def from_bytes(form: Form, record: bytes) -> tuple[bytes, CachedTeacher]:
    """Reads a record: its example's digest, and ids int32, log-probabilities and tails float32.

    Raises:
      RecordError: the bytes are not a whole record of this form.
    """
    digest, rest = record[:DIGEST_BYTES], record[DIGEST_BYTES:]
    tokens, left = divmod(len(rest), form.bytes_per_token)
    if left or not tokens:
        raise RecordError(
            f"a record of {len(record)} bytes is not {DIGEST_BYTES} and a multiple of "
            f"{form.bytes_per_token}: the cache is damaged; make it again"
        )
    shape = (tokens, form.k)
    ids_end = tokens * form.k * form.ids.itemsize
    probs_end = ids_end + tokens * form.k * form.log_probs.itemsize
    ids = _from_planes(rest[:ids_end], form.ids, shape)
    log_probs = _from_planes(rest[ids_end:probs_end], form.log_probs, shape)
    tail = np.frombuffer(rest[probs_end:], _TAIL)
    return digest, CachedTeacher(ids.astype(np.int32), log_probs.astype(np.float32), tail)


def _planes(values: np.ndarray) -> bytes:
    """The bytes of all values, by their place in the value."""
    return values.view(np.uint8).reshape(-1, values.itemsize).T.tobytes()


def _from_planes(planes: bytes, dtype: np.dtype, shape: tuple[int, int]) -> np.ndarray:
    by_place = np.frombuffer(planes, np.uint8).reshape(dtype.itemsize, -1)
    return np.ascontiguousarray(by_place.T).view(dtype).reshape(shape)


def _check(form: Form, example: Example, taught: CachedTeacher) -> None:
    places = response_places(example)
    shape = (len(places), form.k)
    found = np.shape(taught.ids), np.shape(taught.log_probs), np.shape(taught.tail)
    if found != (shape, shape, shape[:1]):
        raise RecordError(
            f"a teacher's answer has shapes {found}; expected {shape} and {shape[:1]}"
        )
    ids = np.asarray(taught.ids)
    if ids.min() < 0 or ids.max() >= form.vocabulary:
        raise RecordError(
            f"a teacher's answer names token {ids.max()} of a vocabulary of {form.vocabulary:,}: "
            "its tokenizer is not the student's"
        )
    if not (ids == example.tokens[places + 1, None]).any(axis=-1).all():
        raise RecordError("a teacher's answer lacks the label of a token")
    if not np.isfinite(taught.log_probs).all() or np.isnan(taught.tail).any():
        raise RecordError("a teacher's answer has log-probabilities that are not finite")
