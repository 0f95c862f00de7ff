"""A teacher behind an OpenAI-compatible endpoint that gives log-probabilities of prompt tokens.

vLLM's `prompt_logprobs` for /v1/completions: for each prompt token but the first, a mapping from
token id to {"logprob": …} of the k likeliest tokens in its place, and of itself.
"""

import json
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import numpy as np

from adakd_jax.axes import CachedTeacher
from adakd_jax.config.teacher_cache import EndpointConfig
from adakd_jax.data.tokenize import Example
from adakd_jax.teacher_cache.records import response_places

# The remaining mass is 1 − Σp of numbers rounded to float32: below this it is noise.
_LEAST_TAIL = 1e-7
_LEAST_LOG_PROB = -9999.0  # what vLLM writes for −inf, which JSON cannot
# Answers that a later try may better: too many requests, and errors of the server.
_PASSING = (408, 409, 425, 429)
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0


class EndpointError(ValueError):
    """A server that cannot be reached, refuses, or answers something else."""


class ServedTeacher:
    """Asks a server what its model thinks of examples, several at a time."""

    def __init__(self, config: EndpointConfig, model: str, k: int):
        """Takes the server's settings, the model's name there, and how many tokens to keep."""
        self._config, self._model, self._k = config, config.model or model, k

    @property
    def address(self) -> str:
        """Where requests go."""
        return f"{self._config.url.rstrip('/')}/completions"

    def __call__(self, examples: Sequence[Example]) -> Iterator[tuple[int, CachedTeacher]]:
        """Yields the place of each example and NumPy arrays [n, k], [n, k] and [n], as they come.

        Raises:
          EndpointError: the server refuses, stays out of reach, or answers something else.
        """
        with ThreadPoolExecutor(self._config.parallel) as pool:
            waiting = {pool.submit(self._ask, example): n for n, example in enumerate(examples)}
            try:
                for done in as_completed(waiting):
                    yield waiting[done], done.result()
            finally:
                for each in waiting:
                    each.cancel()

    def _ask(self, example: Example) -> CachedTeacher:
        answer = self._post(
            {
                "model": self._model,
                "prompt": example.tokens.tolist(),
                "max_tokens": 1,
                "temperature": 0.0,
                "prompt_logprobs": self._k,
            }
        )
        try:
            listed = answer["choices"][0]["prompt_logprobs"]
        except (KeyError, IndexError, TypeError) as error:
            raise EndpointError(
                f"{self.address} gives no prompt_logprobs: its answer has "
                f"{_shown(answer)}; valid: vLLM's /v1/completions, or one that answers alike"
            ) from error
        return parse_logprobs(listed, example, self._k)

    def _post(self, body: Mapping[str, Any]) -> Any:
        """Sends a request, again after a wait where that may help."""
        wait = _FIRST_WAIT
        for tries_left in range(self._config.retries, -1, -1):
            try:
                return self._send(body)
            except urllib.error.HTTPError as error:
                told = error.read().decode(errors="replace")[:500]
                passing = error.code in _PASSING or error.code >= 500
                problem = f"{self.address} answers {error.code}: {told}{_advice(told)}"
            except (OSError, json.JSONDecodeError) as error:
                passing, problem = True, f"{self.address}: {error}"
            if not passing or not tries_left:
                raise EndpointError(problem)
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
        raise AssertionError("the last try returns or raises")

    def _send(self, body: Mapping[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        key = os.environ.get(self._config.api_key_variable)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.address, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=self._config.timeout_seconds) as answer:
            return json.load(answer)


def parse_logprobs(
    listed: Sequence[Mapping[str, Mapping[str, Any]] | None] | None, example: Example, k: int
) -> CachedTeacher:
    """Turns vLLM's `prompt_logprobs` into what a cache keeps.

    The label, which the server always lists, takes the place of the k-th token if it is not among
    the first k; the rest is 1 − Σp, at least 1e-7.

    Args:
      listed: one mapping for each token of the example, None for the first.
      example: what was sent.
      k: tokens to keep.

    Returns:
      NumPy arrays [n, k], [n, k] and [n].

    Raises:
      EndpointError: the answer is not of this form.
    """
    if not isinstance(listed, Sequence) or len(listed) != len(example.tokens):
        count = len(listed) if isinstance(listed, Sequence) else "none"
        raise EndpointError(
            f"the server lists {count} prompt_logprobs for {len(example.tokens)} tokens; it must "
            "take token ids as they are, adding none"
        )
    rows = [
        _largest(listed[place + 1], int(example.tokens[place + 1]), k)
        for place in response_places(example)
    ]
    ids = np.array([[token for token, _ in row] for row in rows], np.int32)
    log_probs = np.array([[value for _, value in row] for row in rows], np.float64)
    log_probs = np.maximum(log_probs, _LEAST_LOG_PROB)
    rest = np.maximum(1.0 - np.exp(log_probs).sum(axis=-1), _LEAST_TAIL)
    return CachedTeacher(ids, log_probs.astype(np.float32), np.log(rest).astype(np.float32))


def _largest(
    entry: Mapping[str, Mapping[str, Any]] | None, label: int, k: int
) -> list[tuple[int, float]]:
    """The k likeliest (token, log-probability) of an entry, the label among them."""
    try:
        found = {int(token): float(each["logprob"]) for token, each in (entry or {}).items()}
    except (KeyError, TypeError, ValueError) as error:
        raise EndpointError(f"prompt_logprobs is not vLLM's: {_shown(entry)}") from error
    if label not in found or len(found) < k or any(map(math.isnan, found.values())):
        raise EndpointError(
            f"the server gives {len(found)} log-probabilities of a token, "
            f"{'with' if label in found else 'without'} that of the token itself; needed: k = {k} "
            "with it (vLLM: start it with --max-logprobs of at least k, or give a smaller --top_k)"
        )
    ordered = sorted(found.items(), key=lambda item: -item[1])
    kept = ordered[:k]
    if all(token != label for token, _ in kept):
        kept[-1] = label, found[label]
    return kept


def _advice(told: str) -> str:
    if "logprobs" not in told:
        return ""
    return " (vLLM: start it with --max-logprobs of at least k, or give a smaller --top_k)"


def _shown(answer: Any) -> str:
    text = json.dumps(answer, default=str)
    return text if len(text) <= 200 else f"{text[:200]}…"
