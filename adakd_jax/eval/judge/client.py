"""One question to an OpenAI-compatible server; what it says never shows the key."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

_NO_KEY = "none"  # servers of one's own take any


class JudgeError(RuntimeError):
    """A question without a reply, after all retries."""


class JudgeRefusedError(JudgeError):
    """No question will get a reply: the key, the model or the address is wrong."""


class Reply(NamedTuple):
    """What the judge said, and what the server counted; 0 where it did not.

    `cut` says that the reply ended at its longest.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    cut: bool = False


class JudgeClient:
    """Asks a server, with the retries of the `openai` package.

    These follow connection errors, timeouts and the codes 408, 409, 429 and 5xx, after 0.5 s and
    then twice as long each time up to 8 s, with jitter, or after what the server asks for.
    """

    def __init__(self, base_url: str, key_variable: str, *, retries: int, timeout: float):
        """Connects to nothing yet.

        Args:
          base_url: of the server, e.g. 'http://localhost:8000/v1'.
          key_variable: the environment variable with the key; absent: a key that says nothing.
          retries: of one question.
          timeout: seconds for one try.

        Raises:
          ImportError: the `openai` package is not installed.
          ValueError: an address with a password in it, or without a scheme; or a key that no
            header can carry.
        """
        try:
            import openai
        except ImportError as error:
            raise ImportError(
                "the judge needs the openai package; valid: pip install 'adakd_jax[judge]'"
            ) from error
        check_address(base_url)
        self._key = _key(key_variable)
        self._openai = openai
        self._client = openai.OpenAI(
            base_url=base_url,
            api_key=self._key or _NO_KEY,
            max_retries=retries,
            timeout=timeout,
        )

    def __enter__(self) -> "JudgeClient":
        """Nothing to do."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the connections."""
        self._client.close()

    def ask(self, request: Mapping[str, Any]) -> Reply:
        """Asks once, retries included.

        Args:
          request: the arguments of a chat completion.

        Raises:
          JudgeRefusedError: 401, 403 or 404.
          JudgeError: any other failure, or a reply that is not a chat completion.
        """
        refusals = (
            self._openai.AuthenticationError,
            self._openai.PermissionDeniedError,
            self._openai.NotFoundError,
        )
        try:
            answer = self._client.chat.completions.create(**request)
            choice = answer.choices[0]
            text, cut = choice.message.content or "", choice.finish_reason == "length"
        except refusals as error:
            raise JudgeRefusedError(self._without_key(str(error))) from None
        except self._openai.OpenAIError as error:
            raise JudgeError(self._without_key(f"{type(error).__name__}: {error}")) from None
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise JudgeError(f"not a chat completion: {type(error).__name__}") from None
        used = answer.usage
        counts = (used.prompt_tokens, used.completion_tokens) if used is not None else (0, 0)
        return Reply(self._without_key(text), *(count or 0 for count in counts), cut=cut)

    def _without_key(self, text: str) -> str:
        """Servers may repeat what they were sent."""
        return text if self._key is None else text.replace(self._key, "[key]")


def _key(variable: str) -> str | None:
    """The key without the line end that files of keys have; an error never shows it."""
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError(
            f"the key in {variable} has characters that no key has; valid: letters, digits and "
            "ASCII signs on one line"
        )
    return key or None


def check_address(base_url: str) -> None:
    """Raises ValueError for what is no http address, or one with a password in it."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"base_url {base_url!r} is no address; valid: http://localhost:8000/v1")
    if parts.username or parts.password or parts.query:
        raise ValueError(
            "base_url may hold no user, password or query: it is written into results; valid: the "
            "key in an environment variable, named by --key_variable"
        )
