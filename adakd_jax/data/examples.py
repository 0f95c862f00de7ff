"""A tokenized data set: flat memory-mapped arrays, written once per content and tokenizer."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int32, Int64
from transformers import PreTrainedTokenizerFast

from adakd_jax.config.chat import ChatConfig
from adakd_jax.data.cache import content_key, local_folder, prepared_folder
from adakd_jax.data.chat_render import TemplateRowError
from adakd_jax.data.progress import track
from adakd_jax.data.row_source import RowSource, listing
from adakd_jax.data.rows import Row, RowError
from adakd_jax.data.sources import EmptyDataError, MalformedRowsError
from adakd_jax.data.templates import TemplateName
from adakd_jax.data.tokenize import Encoder, Example

# Changes whenever the same rows would give other tokens.
_FORMAT = 5
_REASONS_KEPT = 100
_BATCH = 512
_SCANNED = 2**24  # tokens that are looked at together
_TOKENS, _TARGETS, _INDEX, _REPORT = "tokens.int32", "targets.bool", "index.npz", "report.json"


@dataclass(frozen=True)
class EncodingReport:
    """What tokenization met: totals, what was cut, and rows dropped by reason.

    Cuts are pairs: the rows that lost something, and the tokens they lost together. `refused`
    counts the dropped rows that the chat template cannot write as they are to be learned, and
    `refusals` are the first 100 of them, 'file:line: reason'.
    """

    rows: int = 0
    examples: int = 0
    tokens: int = 0
    response_tokens: int = 0
    input_cuts: tuple[int, int] = (0, 0)
    instruction_cuts: tuple[int, int] = (0, 0)
    answer_cuts: tuple[int, int] = (0, 0)
    dropped: dict[str, int] = field(default_factory=dict)
    first_dropped: dict[str, str] = field(default_factory=dict)
    refused: int = 0
    refusals: tuple[str, ...] = ()

    def summary(self) -> str:
        """A line on examples and tokens; then one on each kind of cut and drop, if any."""
        count = max(self.examples, 1)
        lines = [
            f"{self.examples} examples, {self.tokens / count:.1f} tokens each, "
            f"{self.response_tokens / count:.1f} of them response tokens "
            f"({self.response_tokens / max(self.tokens, 1):.1%})"
        ]
        for what in ("input", "instruction", "answer"):
            rows, tokens = getattr(self, f"{what}_cuts")
            if rows:
                place = "end" if what == "answer" else "middle"
                lines.append(
                    f"too long: {rows} rows lost {tokens} tokens at the {place} of the {what}"
                )
        for reason, rows in self.dropped.items():
            lines.append(f"dropped: {rows} rows, first {self.first_dropped[reason]}: {reason}")
        return "\n".join(lines)


class Examples:
    """Tokenized rows, random access, in flat arrays that are read from disk as needed.

    `lengths` [N] counts each example's tokens; `rows` [N] is its row in the source, whose `origin`
    says file and line; `rows_key` names the content of these rows.
    """

    def __init__(
        self,
        tokens: Int32[np.ndarray, " tokens"],
        targets: Bool[np.ndarray, " tokens"],
        lengths: Int64[np.ndarray, " N"],
        rows: Int64[np.ndarray, " N"],
        report: EncodingReport,
        rows_key: str = "",
    ):
        """Takes all examples' tokens end to end."""
        self.rows_key = rows_key
        self.lengths = lengths
        self.rows = rows
        self.report = report
        self._tokens = tokens
        self._targets = targets
        self._ends = np.cumsum(lengths)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.lengths)

    def __getitem__(self, index: int) -> Example:
        """Returns one example, from 0; what it lost stands in the report only."""
        end = int(self._ends[index])
        place = slice(end - int(self.lengths[index]), end)
        return Example(self._tokens[place], self._targets[place])

    def ids_from(self, size: int) -> set[int]:
        """The ids in the examples that are `size` or above; reads all tokens once."""
        starts = range(0, len(self._tokens), _SCANNED)
        blocks = (self._tokens[start : start + _SCANNED] for start in starts)
        return {number for block in blocks for number in np.unique(block[block >= size]).tolist()}

    def __iter__(self) -> Iterator[Example]:
        """All examples in order."""
        return (self[index] for index in range(len(self)))


def encode_rows(
    rows: RowSource,
    template: TemplateName,
    tokenizer: PreTrainedTokenizerFast,
    *,
    max_prompt_length: int,
    max_length: int,
    chat: ChatConfig | None = None,
    on_error: Literal["fail", "skip"] = "skip",
    cache_dir: str | Path = "~/.cache/adakd_jax/data",
) -> Examples:
    """Tokenizes all rows, or opens what an earlier start wrote.

    Args:
      rows: prepared rows.
      template: the prompt format.
      tokenizer: the tokenizer of teacher and student.
      max_prompt_length: tokens of a prompt, at most.
      max_length: tokens of an example, at most; the length of a packed row.
      chat: how a chat template is used; by default as `ChatConfig` says.
      on_error: whether a row that the chat template cannot write as it is to be learned stops the
        run ('fail') or is dropped and reported ('skip'). One that is too long is always dropped.
      cache_dir: local folder of prepared data.

    Returns:
      The examples, in the order of the rows; `report` says what was cut and dropped.

    Raises:
      EmptyDataError: no row gave an example; says why.
      MalformedRowsError: rows that the template cannot write, under 'fail'; lists them.
    """
    encoder = Encoder(template, tokenizer, max_prompt_length, max_length, chat)
    key = content_key(
        format=_FORMAT,
        rows=rows.key,
        tokenizer=tokenizer_digest(tokenizer),
        template=encoder.template_key,
        lengths=[max_prompt_length, max_length],
    )

    def write(folder: Path) -> None:
        _write(folder, rows, encoder)

    folder = prepared_folder(local_folder(cache_dir), f"tokens-{key}", write)
    examples = _open(folder, rows.key)
    report = examples.report
    if report.refused and on_error == "fail":
        raise MalformedRowsError(
            f"the chat template cannot write {report.refused} of {report.rows} rows of "
            f"{rows.report.name} as they are to be learned:\n"
            f"{listing(report.refusals, report.refused)}\n"
            "repair them, or leave them out with data.on_error: skip"
        )
    return examples


def tokenizer_digest(tokenizer: PreTrainedTokenizerFast) -> str:
    """Names all of a tokenizer that tokens depend on: its model, its special tokens, its chat
    template.
    """
    model = json.loads(tokenizer.backend_tokenizer.to_str())
    model.pop("truncation", None)  # set anew by every call
    model.pop("padding", None)
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return content_key(model=model, special=special, chat_template=tokenizer.chat_template)


class _Totals:
    """Counts what the report says, one row at a time."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.rows: list[int] = []
        self.response_tokens = 0
        self.cuts = np.zeros((3, 2), np.int64)
        self.dropped = Counter[str]()
        self.first_dropped: dict[str, str] = {}
        self.refused = 0
        self.refusals: list[str] = []

    def add(self, index: int, example: Example) -> None:
        self.lengths.append(len(example.tokens))
        self.rows.append(index)
        self.response_tokens += int(np.count_nonzero(example.targets[1:]))
        lost = np.array(example.cuts)
        self.cuts += np.stack([lost > 0, lost], axis=1)

    def drop(self, row: Row, error: RowError) -> None:
        self.dropped[str(error)] += 1
        self.first_dropped.setdefault(str(error), row["origin"])
        if isinstance(error, TemplateRowError):
            self.refused += 1
            if len(self.refusals) < _REASONS_KEPT:
                self.refusals.append(f"{row['origin']}: {error}")

    def report(self, seen: int) -> EncodingReport:
        cuts = [(rows, tokens) for rows, tokens in self.cuts.tolist()]
        return EncodingReport(
            rows=seen,
            examples=len(self.lengths),
            tokens=sum(self.lengths),
            response_tokens=self.response_tokens,
            input_cuts=cuts[0],
            instruction_cuts=cuts[1],
            answer_cuts=cuts[2],
            dropped=dict(self.dropped.most_common()),
            first_dropped=self.first_dropped,
            refused=self.refused,
            refusals=tuple(self.refusals),
        )


def _write(folder: Path, rows: RowSource, encoder: Encoder) -> None:
    totals = _Totals()
    with (folder / _TOKENS).open("wb") as tokens, (folder / _TARGETS).open("wb") as targets:
        for index, row, result in track(_encoded(rows, encoder), "tokenizing", len(rows)):
            if isinstance(result, RowError):
                totals.drop(row, result)
                continue
            tokens.write(result.tokens.tobytes())
            targets.write(result.targets.tobytes())
            totals.add(index, result)
    report = totals.report(len(rows))
    if not report.examples:
        raise EmptyDataError(f"no row of {rows.report.name} gives an example:\n{report.summary()}")
    np.savez(folder / _INDEX, lengths=np.array(totals.lengths), rows=np.array(totals.rows))
    (folder / _REPORT).write_text(json.dumps(asdict(report), ensure_ascii=False))


def _encoded(rows: RowSource, encoder: Encoder) -> Iterator[tuple[int, Row, Example | RowError]]:
    for start in range(0, len(rows), _BATCH):
        indices = range(start, min(start + _BATCH, len(rows)))
        batch = rows.__getitems__(indices)
        yield from zip(indices, batch, encoder.examples(batch), strict=True)


def _open(folder: Path, rows_key: str) -> Examples:
    stored = json.loads((folder / _REPORT).read_text())
    cuts = {name: tuple(value) for name, value in stored.items() if isinstance(value, list)}
    # Plain arrays over the mapped files: slicing them is much faster.
    tokens = np.asarray(np.memmap(folder / _TOKENS, np.int32, "r"))
    targets = np.asarray(np.memmap(folder / _TARGETS, np.bool_, "r"))
    report = EncodingReport(**{**stored, **cuts})
    with np.load(folder / _INDEX) as index:
        return Examples(tokens, targets, index["lengths"], index["rows"], report, rows_key)
