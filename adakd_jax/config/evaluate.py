"""The settings of `adakd_jax.evaluate`."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from adakd_jax.config.chat import ChatConfig
from adakd_jax.config.data import Columns
from adakd_jax.config.stage import Check, Conflict, Stage
from adakd_jax.config.suites import SAMPLING, SEEDS, SuiteName
from adakd_jax.config.training import GenerationConfig


def _something_to_measure_on(suite: tuple[str, ...], data: str | None) -> Conflict | None:
    if suite or data is not None:
        return None
    return Conflict("give suite, data or both", "--suite dolly, or --data FILE.jsonl")


class EvaluateCommand(Stage):
    """What is measured, and on what."""

    checks: ClassVar[tuple[Check, ...]] = (Check(("suite", "data"), _something_to_measure_on),)

    model: str = Field(
        description="run folder, exported folder, hub id, .gguf file or 'package:NAME/FILE'"
    )
    suite: tuple[SuiteName, ...] = Field(
        default=(),
        description="named sets, comma separated; sampled as the papers do (temperature 1, top-p "
        "1, 256 tokens, five seeds) where `generation` and `seeds` do not say otherwise",
    )
    data: str | None = Field(
        default=None,
        description="JSON, JSON lines, CSV or Parquet file(s), glob patterns allowed, or "
        "'hub:OWNER/NAME:FILES'; for several suites a folder with dolly.jsonl and so on; "
        "null: each suite from the hub",
    )
    compare: str | None = Field(
        default=None, description="another model, shown side by side and compared pair by pair"
    )
    teacher: str | None = Field(
        default=None, description="model to measure KLs and agreement against; same tokenizer"
    )
    step: str | None = Field(
        default=None,
        description="checkpoint of the run folder `model`: a step, 'latest' or 'best'; "
        "null: its export, else the latest",
    )
    template: Literal["alpaca", "chat", "text"] | None = Field(
        default=None, description="prompt format; null: that of the run folder, else alpaca"
    )
    chat: ChatConfig | None = Field(
        default=None,
        description="how a chat template is used; null: as the run folder says, else by default",
    )
    max_length: PositiveInt | None = Field(
        default=None, description="tokens of a packed row; null: that of the run folder, else 512"
    )
    max_prompt_length: PositiveInt | None = Field(
        default=None, description="tokens of a prompt; null: that of the run folder, else 256"
    )
    max_examples: PositiveInt | None = Field(
        default=None, description="rows used of each set, the first ones; null: all"
    )
    generate_examples: NonNegativeInt | None = Field(
        default=None, description="of those, prompts to answer; null: all; 0: none"
    )
    show_examples: NonNegativeInt = Field(default=3, description="answers printed of each set")
    batch_rows: PositiveInt = Field(default=4, description="packed rows per forward pass")
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="of sampling, comma separated; null: 10,20,30,40,50 for suites, else 0",
    )
    resamples: PositiveInt = Field(
        default=10_000, description="bootstrap resamples of a comparison"
    )
    output: str | None = Field(
        default=None,
        description="local folder for numbers, tables and answers; sampled answers that it has "
        "are not sampled again",
    )
    cache_dir: str = Field(
        default="~/.cache/adakd_jax/data", description="local folder of prepared data"
    )
    columns: Columns = Field(default=Columns(), description="column names of the rows")
    generation: GenerationConfig = Field(
        default=GenerationConfig(), description="how answers are sampled"
    )

    def sampling(self) -> GenerationConfig:
        """How answers are sampled: as the papers do for suites, where nothing else is said."""
        if not self.suite:
            return self.generation
        unsaid = {k: v for k, v in SAMPLING.items() if k not in self.generation.model_fields_set}
        return self.generation.model_copy(update=unsaid)

    def sampling_seeds(self) -> tuple[int, ...]:
        """Of sampling."""
        return self.seeds or (SEEDS if self.suite else (0,))

    def told(self) -> dict[str, Any]:
        """The settings that an evaluation is told by, with what was left to the suite filled in."""
        settings = self.model_dump(mode="json", exclude={"output", "cache_dir", "show_examples"})
        sampling = self.sampling().model_dump(mode="json")
        return {**settings, "generation": sampling, "seeds": list(self.sampling_seeds())}
