"""The licence of a model, as the front matter of its model card states it."""

import re
import warnings
from pathlib import Path
from typing import Any

import yaml

_SEPARATOR = ", "


def licence_of(card: Path) -> str | None:
    """The `license:` of a model card; several are joined by commas. None if it states none.

    Only the front matter is looked at, and no card stops a run: one that cannot be read is warned
    of, and has no licence.
    """
    if not card.is_file():
        return None
    text = card.read_bytes().decode("utf-8-sig", errors="replace")
    front = re.match(r"---[ \t]*\r?\n(.*?)\r?\n---", text, re.DOTALL)
    if front is None:
        return None
    try:
        content = yaml.safe_load(front[1])
    except (yaml.YAMLError, ValueError) as error:
        first = " ".join(str(error).split())
        warnings.warn(
            f"{card}: its front matter is no YAML, so that the licence is unknown: {first}",
            stacklevel=2,
        )
        return None
    return _joined(content.get("license")) if isinstance(content, dict) else None


def licence_ids(licence: str) -> list[str]:
    """The single licences of what `licence_of` gives."""
    return licence.split(_SEPARATOR)


def _joined(stated: Any) -> str | None:
    each = stated if isinstance(stated, list) else [stated]
    names = [str(one).strip() for one in each if one is not None and str(one).strip()]
    return _SEPARATOR.join(names) or None
