"""Smaller models out of one, each measured before it is trained."""

import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax

from adakd_jax.axes import TokenBatch
from adakd_jax.config.models import StudentPruned
from adakd_jax.config.training import GenerationConfig
from adakd_jax.eval.generate import generate
from adakd_jax.eval.likelihood import Likelihood, likelihood
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.hf.student import init_student
from adakd_jax.hf.student_config import can_keep
from adakd_jax.models.config import DecoderConfig
from adakd_jax.models.size import active_parameter_count, parameter_count
from adakd_jax.pruning.choice import choose, most_influential
from adakd_jax.pruning.fit import fitted_kernels
from adakd_jax.pruning.importance import Importance
from adakd_jax.pruning.shape import pruned_sizes
from adakd_jax.pruning.sizes import Sizes, sizes_of

_TIMED_TOKENS = 24


class Candidate(NamedTuple):
    """A smaller model, before training.

    `what` was reduced to `share` of it; `measured` is on held-out rows, in nats per token;
    `seconds` a token of one answer, estimated: the whole model's, which is measured, times the
    share of the weights that a token reads.
    """

    what: str
    share: float
    sizes: Sizes
    parameters: int
    measured: Likelihood
    seconds: float


@dataclasses.dataclass(frozen=True)
class Trials:
    """What all candidates share: the whole model, rows to fit them on and rows to measure them on,
    and the order in which layers are left out, if they are not left out by influence.
    """

    model: Pretrained
    importance: Importance
    calibration: Sequence[TokenBatch]
    held_out: Sequence[TokenBatch]
    removed: Sequence[int] = ()

    def whole(self, seconds: float) -> Candidate:
        """The whole model itself, beside which the others stand."""
        config = self.model.config
        measured = self._measured(self.model)
        return Candidate(
            "teacher", 1.0, sizes_of(config), parameter_count(config), measured, seconds
        )

    def try_each(
        self, what: Sequence[str], shares: Sequence[float], seconds: float
    ) -> Iterator[Candidate]:
        """Cuts and measures a model for each share of each thing that is reduced.

        Raises:
            ValueError: sizes that the family cannot have.
        """
        for name in what:
            for share in shares:
                yield self._tried(name, share, seconds)

    def _tried(self, name: str, share: float, seconds: float) -> Candidate:
        config = self.model.config
        whole = parameter_count(config)
        asked = round(share * whole) if name == "parameters" else share
        source = StudentPruned.model_validate(
            {name: None if share == 1.0 else asked, "compute_dtype": _dtype(config)}
        )
        sizes = pruned_sizes(source, self.model.source.hf_config)
        choice = choose(config, self.importance, sizes, self._left(sizes))
        fitted = fitted_kernels(self.model, self.calibration, choice)
        student = init_student(source, self.model, jax.random.key(0), choice=choice, fitted=fitted)
        read = _read_by_a_token(student.config) / _read_by_a_token(config)
        return Candidate(
            name,
            share,
            sizes,
            parameter_count(student.config),
            self._measured(student),
            seconds * read,
        )

    def _left(self, sizes: Sizes) -> list[int]:
        """The layers that stay: what is left where as many were left out one by one, or else those
        with the largest influence.
        """
        whole = self.model.config.num_layers
        gone = self.removed[: whole - sizes.layers]
        if gone and len(gone) == whole - sizes.layers:
            return sorted(set(range(whole)) - set(gone))
        makes_a_model = functools.partial(can_keep, self.model.source.hf_config)
        return most_influential(self.importance.influence, sizes.layers, makes_a_model)

    def _measured(self, student: Pretrained) -> Likelihood:
        teacher = self.model
        return likelihood(
            student.graphdef, student.params, teacher.graphdef, teacher.params, self.held_out
        )


def _dtype(config: DecoderConfig) -> str:
    return "bfloat16" if config.compute_dtype == "bfloat16" else "float32"


def _read_by_a_token(config: DecoderConfig) -> int:
    """Weights that a new token is multiplied by: of the input embedding a row alone."""
    table = 0 if config.tied else config.vocab_size * config.embed_dim
    return active_parameter_count(config) - table


def seconds_a_token(model: Pretrained, prompt: Sequence[int]) -> float:
    """How long the model takes for a token of one answer, on this machine; measured."""
    settings = GenerationConfig(max_new_tokens=_TIMED_TOKENS, batch_size=1)

    def answer() -> None:
        generate(model.graphdef, model.params, [prompt], settings, eos_ids=(), pad_id=0)

    answer()  # compiles
    began = time.perf_counter()
    answer()
    return (time.perf_counter() - began) / _TIMED_TOKENS
