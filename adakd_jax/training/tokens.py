"""The tokens of a few held-out examples as the policy sees them, written down at a few steps."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from transformers import PreTrainedTokenizerFast

from adakd_jax.axes import IGNORE, TokenBatch
from adakd_jax.data.assemble import assemble_rows
from adakd_jax.data.examples import Examples
from adakd_jax.data.fill import packed_rows
from adakd_jax.data.token_text import text_pieces, token_texts
from adakd_jax.distill import Signals
from adakd_jax.eval.suite import HeldOut
from adakd_jax.processes import first_says, is_first
from adakd_jax.training.learned import as_signals
from adakd_jax.training.prepare import Run
from adakd_jax.training.state import TrainState
from adakd_jax.training.step import keep_ratio
from adakd_jax.training.token_view import CHUNK, PolicyView, Predictions, Viewed, token_view
from adakd_jax.user_path import user_path
from adakd_jax.whole_file import write_whole

FOLDER = "tokens"
_MOST_TOKENS = 512  # of an example, prompt included; longer ones only where there are no others
_SHOWN_BEFORE = 128  # tokens of the prompt that are shown, counted back from the first response
_ROW_MULTIPLE = 128  # what attention kernels want a row's length to divide by
_DIGITS = 4


class TokenSnapshots:
    """Writes RUN_DIR/tokens/step_N.json at a few steps N, evenly from before to after training.

    Each holds, of the same few held-out examples, the text in pieces and for every response token
    its difficulty, whether the focus keeps it at the ratio of that step, its temperature, and what
    student and teacher hold most likely. The examples of a snapshot are one micro-batch to the
    policy. A snapshot that exists is left as it is.

    `steps` are the steps after which one is taken; 0 is before training.
    """

    def __init__(self, run: Run, examples: Examples, *, count: int, most_examples: int):
        """Chooses steps and examples.

        Args:
            run: gives models, settings and run folder.
            examples: the held-out rows, tokenized.
            count: how many snapshots; 1 is the one after training.
            most_examples: the first so many of up to 512 tokens, or the shortest.
        """
        assert run.student.tokenizer is not None  # without one, nothing is held out
        self._run, self._tokenizer = run, run.student.tokenizer
        total = run.batches.total_steps
        between = max(count - 1, 1)
        self.steps = frozenset(round(total * (between - i) / between) for i in range(count))
        self._folder = user_path(run.config.run_dir) / FOLDER
        chosen = readable(examples.lengths, most_examples)
        lengths = examples.lengths[chosen]
        whole = -(-int(lengths.sum()) // _ROW_MULTIPLE) * _ROW_MULTIPLE
        length = min(whole, run.config.data.max_length)
        packed = packed_rows(lengths, length)
        self._batch = assemble_rows(examples, [chosen[row] for row in packed], length)
        self._passages = [
            _passage(self._tokenizer, *document) for document in _documents(self._batch)
        ]
        self._order = np.argsort(np.concatenate(packed))  # from packed rows back to the data's

    def take(self, state: TrainState, params: Any) -> None:
        """Write the snapshot of a state, unless an earlier start did.

        Args:
            state: whose step, random key and keep ratio decide what the policy does.
            params: the student's weights, as they are evaluated.

        Scope: all processes of a run call this; the first one writes.
        """
        file = self._folder / f"step_{int(state.step)}.json"
        if first_says(file.exists()):
            return
        seen, ratio = self._look(state, params)
        if not is_first():
            return
        written = self._written(int(state.step), ratio, seen)
        write_whole(file, json.dumps(written, ensure_ascii=False))

    def _look(self, state: TrainState, params: Any) -> tuple[Any, float]:
        run = self._run
        ratio, key = keep_ratio(state.opt_state), jax.random.wrap_key_data(state.rng)
        signals = Signals(
            keep_ratio=ratio,
            progress=state.step / run.batches.total_steps,
            rng=jax.random.fold_in(key, state.step),
            learned=None if state.learned is None else as_signals(state.learned.values),
            review=jnp.asarray(False),
        )
        places = np.flatnonzero(self._batch.labels != IGNORE).astype(np.int32)
        # The last place again and again, so that chunks are full.
        filled = np.pad(places, (0, -len(places) % CHUNK), mode="edge")
        teacher = run.teacher
        seen = token_view(
            Viewed(
                run.config.distill,
                run.student.graphdef,
                None if teacher is None else teacher.graphdef,
            ),
            params,
            None if teacher is None else teacher.params,
            self._batch,
            filled,
            signals,
        )
        cut = jax.tree.map(lambda x: np.asarray(x)[: len(places)], jax.device_get(seen))
        return cut, float(ratio)

    def _written(self, step: int, ratio: float, seen: Any) -> dict[str, Any]:
        """The content of a snapshot's file."""
        counts = [len(passage.places) for passage in self._passages]
        bounds = np.concatenate([[0], np.cumsum(counts)])
        examples = []
        texts = self._texts(seen)
        for index in self._order:
            passage = self._passages[index]
            part = slice(bounds[index], bounds[index] + len(passage.shown))
            examples.append(
                {
                    "pieces": passage.pieces,
                    "places": passage.shown,
                    "cut": passage.cut,
                    **_policy_columns(seen.policy, part),
                    **_model_columns("student", seen.student, part, texts),
                    **_model_columns("teacher", seen.teacher, part, texts),
                }
            )
        return {"step": step, "keep_ratio": round(ratio, _DIGITS), "examples": examples}

    def _texts(self, seen: Any) -> dict[int, str]:
        models = [model for model in (seen.student, seen.teacher) if model is not None]
        ids = np.unique(np.concatenate([model.token.ravel() for model in models]))
        return token_texts(self._tokenizer, ids.tolist())


def snapshots_of(run: Run, held_out: HeldOut | None) -> TokenSnapshots | None:
    """Those that a run is configured to take; None if it takes none."""
    evaluation = run.config.evaluation
    if held_out is None or held_out.examples is None or not evaluation.token_snapshots:
        return None
    return TokenSnapshots(
        run,
        held_out.examples,
        count=evaluation.token_snapshots,
        most_examples=evaluation.token_examples,
    )


class _Passage(NamedTuple):
    """An example in words.

    Attributes:
        pieces: text of each token shown.
        places: which tokens of the example are learned, all of them.
        shown: the first of these, as indices into `pieces`.
        cut: whether prompt (first) and response (second) go on outside `pieces`.
    """

    pieces: list[str]
    places: list[int]
    shown: list[int]
    cut: tuple[bool, bool]


def readable(lengths: np.ndarray, count: int) -> np.ndarray:
    """The first `count` examples of a readable length, or, where these are fewer, the shortest."""
    short = np.flatnonzero(lengths <= _MOST_TOKENS)
    if len(short) >= min(count, len(lengths)):
        return short[:count]
    return np.sort(np.argsort(lengths, kind="stable")[:count])


def _documents(batch: TokenBatch) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Tokens and labels of each document, in the order of the rows."""
    rows = map(np.asarray, (batch.tokens, batch.labels, batch.segments))
    for tokens, labels, segments in zip(*rows, strict=True):
        for number in range(1, segments.max() + 1):
            yield tokens[segments == number], labels[segments == number]


def _passage(
    tokenizer: PreTrainedTokenizerFast, tokens: np.ndarray, labels: np.ndarray
) -> _Passage:
    places = (np.flatnonzero(labels != IGNORE) + 1).tolist()
    start = max(0, places[0] - _SHOWN_BEFORE)
    end = min(len(tokens), start + _MOST_TOKENS)
    pieces = text_pieces(tokenizer, tokens[start:end].tolist())
    shown = [place - start for place in places if place < end]
    return _Passage(pieces, places, shown, (start > 0, end < len(tokens)))


def _policy_columns(policy: PolicyView | None, part: slice) -> dict[str, Any]:
    if policy is None:
        return {}
    return {
        "score": _rounded(policy.score[part]),
        "selected": policy.selected[part].tolist(),
        "temperature": _rounded(policy.temperature[part]),
    }


def _model_columns(
    who: str, model: Predictions | None, part: slice, texts: dict[int, str]
) -> dict[str, Any]:
    if model is None:
        return {}
    top = [
        [[texts[token], share] for token, share in zip(tokens, _rounded(shares), strict=True)]
        for tokens, shares in zip(model.token[part].tolist(), model.probability[part], strict=True)
    ]
    return {f"{who}_nll": _rounded(model.nll[part]), who: top}


def _rounded(values: Any) -> list[float | None]:
    """As JSON numbers; null where a value is not finite."""
    return [
        round(value, _DIGITS) if np.isfinite(value) else None
        for value in values.astype(np.float64).tolist()
    ]
