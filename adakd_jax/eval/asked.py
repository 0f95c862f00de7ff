"""What a row asks, in a form in which rows and answers to them can be matched."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def asked_turns(messages: Sequence[Any]) -> Sequence[Any]:
    """A conversation without a last assistant turn: what is answered."""
    return messages[:-1] if messages[-1]["role"] == "assistant" else messages


def asked_key(row: Mapping[str, Any]) -> str:
    """What was asked, as one text; the same for a row and for its record in an answer file."""
    messages = row.get("messages")
    asked = asked_turns(messages) if messages else [row.get("instruction"), row.get("input")]
    return json.dumps(asked, ensure_ascii=False)
