"""What a row is, by its columns: the shapes in which people keep questions, answers and talks.

A row keeps its parts under the names of `data.columns`. One that has none of them there is
recognised by shape, so that common data sets need no settings. A column that was named otherwise
than by default is never replaced.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from adakd_jax.config.data import Columns

_DEFAULT = Columns()
# A column of prompts, and the columns that answers to it stand in.
_ANSWERS = {
    "prompt": ("completion", "response", "output", "answer"),
    "question": ("answer", "response", "output"),
    "query": ("response", "answer", "output"),
    "input": ("output",),
    "instruction": ("output", "response", "completion", "answer"),
}
_CONVERSATIONS = ("conversations", "conversation")
_ROLES = {
    "human": "user",
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "model", "function_call"), "assistant"),
    **dict.fromkeys(("observation", "function", "function_response", "tool_response"), "tool"),
}


class Shape(NamedTuple):
    """A row as it is to be read.

    `columns` name its parts in `row`. `told` says for people where they were found, None where they
    are called as the settings say. `answered` is False if the answer's own column is empty.
    """

    row: Mapping[str, Any]
    columns: Columns
    told: str | None = None
    answered: bool = True


def recognise(raw: Mapping[str, Any], columns: Columns) -> Shape:
    """Finds a row's parts.

    In this order, the first that the row has: messages; a ShareGPT conversation (`conversations` of
    {from, value}); an instruction, or a prompt with its answer (prompt and completion, prompt and
    response, question and answer, query and response, input and output); text. Messages may be JSON
    text, and `weight: 0` marks those that a prompt of messages has before its completion.

    Args:
      raw: column → value.
      columns: the names under which the row keeps its parts; a dotted one leads inside a value, as
        in 'instances.0.output'.
    """
    row = _with_nested(raw, columns)
    if row.get(columns.messages):
        return _conversation(row, columns)
    if row.get(columns.instruction):
        return _question(row, columns, columns.instruction)
    if columns.messages == _DEFAULT.messages:
        for name in _CONVERSATIONS:
            if row.get(name):
                return _conversation(row, columns.model_copy(update={"messages": name}))
        if _is_talk(row.get("prompt")) or _is_talk(row.get("completion")):
            return _prompt_and_completion(row, columns)
    if columns.instruction == _DEFAULT.instruction:
        for prompt, answers in _ANSWERS.items():
            answered = columns.output != _DEFAULT.output or any(name in row for name in answers)
            needs_answer = prompt == "input" or bool(row.get(columns.text))
            if _is_text(row.get(prompt)) and (answered or not needs_answer):
                return _question(row, columns, prompt)
    return Shape(row, columns)


def columns_read(columns: Columns) -> tuple[str, ...]:
    """The columns of a file that any shape may need."""
    named = [name.partition(".")[0] for name in columns.model_dump().values()]
    answers = [name for names in _ANSWERS.values() for name in names]
    others = ("system", "tools", "context")
    return (*columns.model_dump().values(), *named, *_CONVERSATIONS, *_ANSWERS, *answers, *others)


def _with_nested(raw: Mapping[str, Any], columns: Columns) -> Mapping[str, Any]:
    nested = {}
    for name in columns.model_dump().values():
        if "." in name and name not in raw:
            value: Any = raw
            for key in name.split("."):
                value = _inside(value, key)
            if value is not None:
                nested[name] = value
    return {**raw, **nested} if nested else raw


def _inside(value: Any, key: str) -> Any:
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        value = _from_json(value)
    if isinstance(value, Mapping):
        return value.get(key)
    if isinstance(value, Sequence) and not isinstance(value, str) and key.isdecimal():
        return value[int(key)] if int(key) < len(value) else None
    return None


def _question(row: Mapping[str, Any], columns: Columns, prompt: str) -> Shape:
    """A row of a prompt, whose answer and context stand in the first column that there is."""
    found = {"instruction": prompt}
    if prompt == "input":
        found["input"] = ""
    elif columns.input == "input" and "input" not in row and _is_text(row.get("context")):
        found["input"] = "context"
    if columns.output == _DEFAULT.output:
        usual = (*_ANSWERS.get(prompt, ()), *_ANSWERS["instruction"])
        found["output"] = next((name for name in usual if name in row), columns.output)
    now = columns.model_copy(update=found)
    if prompt == "prompt" and now.output == "completion" and not row.get(columns.text):
        # What is trained on with no template at all.
        texts = (row[prompt], row["completion"])
        if all(isinstance(text, str) and text for text in texts):
            row = {**row, columns.text: "".join(texts)}
    changed = [
        f"{part} from {name!r}"
        for part, name in found.items()
        if name and name != getattr(columns, part)
    ]
    return Shape(row, now, ", ".join(changed) or None)


def _prompt_and_completion(row: Mapping[str, Any], columns: Columns) -> Shape:
    """TRL's conversational form: of both parts together, only the completion is learned."""
    prompt = _turns(row.get("prompt"), "user")
    completion = _turns(row.get("completion"), "assistant")
    given = [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in prompt]
    name = "prompt + completion"
    return Shape(
        {**row, name: [*given, *completion]},
        columns.model_copy(update={"messages": name}),
        "messages from 'prompt' and 'completion', the completion is learned",
        answered=any(turn["role"] == "assistant" for turn in completion),
    )


def _conversation(row: Mapping[str, Any], columns: Columns) -> Shape:
    name = columns.messages
    value = row[name]
    turns = _turns(value, "user") if _is_talk(value) else value
    apart = row.get("system") if name in _CONVERSATIONS and _is_talk(turns) else None
    if _is_text(apart) and turns[0]["role"] != "system":
        turns = [{"role": "system", "content": apart}, *turns]
    if turns == value:
        return Shape(row, columns, _told_of_talk(name, value))
    return Shape({**row, name: turns}, columns, _told_of_talk(name, value))


def _told_of_talk(name: str, value: Any) -> str | None:
    first = value[0] if isinstance(value, Sequence) and value else None
    share_gpt = isinstance(first, Mapping) and "from" in first
    kinds = [
        "of {from, value}" if share_gpt else "",
        "as JSON text" if isinstance(value, str) else "",
    ]
    kind = " ".join(filter(None, kinds))
    if not kind and name not in _CONVERSATIONS:
        return None
    return f"messages from {name!r} {kind}".strip()


def _is_talk(value: Any) -> bool:
    """A list of turns, or the JSON text of one."""
    if isinstance(value, str):
        value = _from_json(value) if value.lstrip().startswith("[") else None
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    return listed and bool(value) and all(isinstance(turn, Mapping) for turn in value)


def _turns(value: Any, role: str) -> list[Mapping[str, Any]]:
    """The turns of a talk; of a text, the one turn that `role` has."""
    if _is_talk(value):
        listed = _from_json(value) if isinstance(value, str) else value
        return [_turn(turn) for turn in listed]
    return [{"role": role, "content": value}] if _is_text(value) else []


def _turn(turn: Mapping[str, Any]) -> Mapping[str, Any]:
    """A turn as {role, content}, with all its other fields."""
    if "role" in turn and "content" in turn and turn["role"] not in _ROLES:
        return turn
    said_by = turn.get("role", turn.get("from"))
    role = _ROLES.get(said_by, said_by) if isinstance(said_by, str) else said_by
    rest = {key: turn[key] for key in turn if key not in ("role", "from", "content", "value")}
    content = turn.get("content", turn.get("value"))
    if said_by == "function_call" and (calls := _calls(content)):
        return {"role": role, "content": "", "tool_calls": calls, **rest}
    return {"role": role, "content": content, **rest}


def _calls(content: Any) -> list[dict[str, Any]]:
    """Calls that a turn holds as JSON text, in the form that chat templates take."""
    found = _from_json(content) if isinstance(content, str) else content
    listed = found if isinstance(found, list) else [found]
    if not all(isinstance(call, Mapping) and "name" in call for call in listed):
        return []
    return [{"type": "function", "function": dict(call)} for call in listed]


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
