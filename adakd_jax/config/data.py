"""Where rows come from and how they become token batches."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, PositiveInt

from adakd_jax.config.chat import ChatConfig
from adakd_jax.config.checks import DATA_CHECKS
from adakd_jax.config.stage import Check, Stage


def _alone(path: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """One path is the same setting alone and in a list, as the command line gives it."""
    return path[0] if isinstance(path, tuple) and len(path) == 1 else path


class FileSource(Stage):
    """Rows from local or gs:// files."""

    kind: Literal["file"] = "file"
    path: Annotated[str | tuple[str, ...], AfterValidator(_alone)] = Field(
        description="JSON, JSON lines, CSV or Parquet file(s), text also as .gz or .zst; what is "
        "no file may be a glob pattern"
    )


class TfdsSource(Stage):
    """Rows from a TFDS data set."""

    kind: Literal["tfds"] = "tfds"
    name: str = Field(description="TFDS name, e.g. 'my_dataset/config:1.0.0'")
    split: str = Field(default="train", description="TFDS split, slices allowed: 'train[:90%]'")
    data_dir: str | None = Field(
        default=None,
        description="folder of prepared TFDS data; default: TFDS_DATA_DIR or TFDS's own",
    )


class HubSource(Stage):
    """Rows from a data set on the Hugging Face hub."""

    kind: Literal["hub"] = "hub"
    name: str = Field(description="data set repository, e.g. 'databricks/databricks-dolly-15k'")
    files: str = Field(
        default="*",
        description="file of the repository, or glob over its JSON, CSV and Parquet files",
    )
    revision: str | None = Field(default=None, description="branch, tag or commit; null: main")


Source = Annotated[FileSource | TfdsSource | HubSource, Field(discriminator="kind")]


class Columns(Stage):
    """The names under which rows keep their parts.

    A dotted name leads inside a value: `instances.0.output`. Rows that have none of the default
    columns are recognised by shape; a column that is named here comes before that.
    """

    instruction: str = Field(
        default="instruction",
        description="column of the instruction; a row that has one needs an answer, whatever else "
        "it has",
    )
    input: str = Field(default="input", description="column of the optional input")
    output: str = Field(
        default="output", description="column of the answer: a text or a list of texts"
    )
    messages: str = Field(
        default="messages",
        description="column of a conversation: [{role, content}, …], or the JSON text of it; comes "
        "before the instruction",
    )
    text: str = Field(
        default="text", description="column of plain text, read by template text alone"
    )
    tools: str = Field(
        default="tools", description="column of the tools a conversation may call: JSON schemas"
    )
    template_kwargs: str = Field(
        default="chat_template_kwargs",
        description="column of what a row tells the chat template, e.g. {enable_thinking: false}",
    )
    finish: str = Field(
        default="finish",
        description="column of what ended an answer that a model wrote; one that 'length' ended "
        "gets no EOS target",
    )


class DataConfig(Stage):
    """Where rows come from and how they become packed token sequences."""

    checks: ClassVar[tuple[Check, ...]] = DATA_CHECKS

    train: Source = Field(description="training rows")
    validation: Source | None = Field(default=None, description="held-out rows for evaluation")
    validation_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        default=0.0,
        description="share of the training rows to hold out when `validation` is absent",
    )
    template: Literal["alpaca", "chat", "text"] = Field(
        default="alpaca",
        description="prompt format. alpaca: the Alpaca prompt; chat: the tokenizer's own; text: "
        "none, every token is a target",
    )
    chat: ChatConfig = Field(
        default=ChatConfig(), description="how conversations become text under template chat"
    )
    columns: Columns = Field(default=Columns(), description="column names of the rows")
    max_length: Annotated[int, Field(ge=8)] = Field(
        default=512,
        description="tokens of a packed row; an example that is longer loses the end of its answer",
    )
    max_prompt_length: Annotated[int, Field(ge=4)] = Field(
        default=256,
        description="tokens of a prompt; a longer one loses the middle of its input, then that "
        "of its instruction, in training as in generation",
    )
    max_rows: PositiveInt | None = Field(
        default=None, description="use only the first rows of the source"
    )
    on_error: Literal["fail", "skip"] = Field(
        default="fail", description="what a malformed row does"
    )
    cache_dir: str = Field(
        default="~/.cache/adakd_jax/data", description="folder of the prepared ArrayRecord files"
    )
