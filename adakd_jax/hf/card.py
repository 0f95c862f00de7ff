"""The model card of an exported student: the README.md that the hub shows."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from huggingface_hub import ModelCardData

from adakd_jax.hf.licence import licence_ids

TAGS = ("knowledge-distillation", "adakd", "jax")


@dataclass(frozen=True)
class MetricTable:
    """Numbers side by side: one column per model, one row per metric; None where not measured."""

    columns: tuple[str, ...]
    rows: Mapping[str, Sequence[float | None]]

    def __post_init__(self) -> None:
        """Raises ValueError for a row that does not have one value per column."""
        wrong = [name for name, row in self.rows.items() if len(row) != len(self.columns)]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: need {len(self.columns)} values, one per column")


@dataclass(frozen=True)
class CardFacts:
    """What a model card says.

    Args:
      name: the model's name, its title.
      teacher: hub id or path of the teacher, as the run was given it; None if there was none.
      teacher_licence: licence id of the teacher, or of the model that was fine-tuned, such as
        `apache-2.0`, several joined by ", "; None if its files do not say.
      origin: where the student's weights started, one sentence.
      method: what was minimised and how, one paragraph.
      data: what it was trained on and how much of it, one paragraph.
      command: the arguments that started the run.
      metrics: measured numbers, if any.
      versions: package name → version.
      parameters: number of parameters of the student, or of its adapter.
      base: the model that an adapter belongs to; None for a whole model.
    """

    name: str
    teacher: str | None
    teacher_licence: str | None
    origin: str
    method: str
    data: str
    command: Sequence[str]
    parameters: int
    metrics: MetricTable | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    base: str | None = None


def model_card(facts: CardFacts) -> str:
    """Writes the card: YAML front matter for the hub, then Markdown for people."""
    sections = [
        f"# {facts.name}\n\n{_what(facts)} of {facts.parameters:,} parameters, {_made(facts)}.",
        "## Use\n\n" + _code("python", _USE if facts.base is None else _use_of_adapter(facts.base)),
        f"## Training\n\n{facts.origin}\n\n{facts.method}",
        f"## Data\n\n{facts.data}",
    ]
    if facts.metrics is not None:
        sections.append(f"## Evaluation\n\n{_markdown_table(facts.metrics)}")
    sections.append(f"## Reproduce\n\n{_reproduce(facts)}")
    sections.append(f"## Licence\n\n{_licence(facts)}")
    return f"---\n{_front_matter(facts)}\n---\n\n" + "\n\n".join(sections) + "\n"


_USE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

path = "."  # this folder, or its name on the hub
model = AutoModelForCausalLM.from_pretrained(path)
tokenizer = AutoTokenizer.from_pretrained(path)"""


def _use_of_adapter(base: str) -> str:
    model, made = f'"{base}"', ""
    if not loads_in_transformers(base):
        model = '"base"'
        made = f"""\
import adakd_jax

adakd_jax.save_pretrained(adakd_jax.load_pretrained("{base}"), {model})
"""
    return f"""\
{made}from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

path = "."  # this folder, or its name on the hub
model = AutoModelForCausalLM.from_pretrained({model})
model = PeftModel.from_pretrained(model, path)
tokenizer = AutoTokenizer.from_pretrained(path)"""


def loads_in_transformers(name: str) -> bool:
    """Whether what `locate` finds by this name is a folder or hub id that transformers takes."""
    return not name.endswith(".gguf") and ":" not in name


def _what(facts: CardFacts) -> str:
    if facts.base is None:
        return "A language model"
    return f"A low-rank adapter (LoRA) of {_model_link(facts.base)}"


def _made(facts: CardFacts) -> str:
    if facts.teacher is None:
        return "fine-tuned with `adakd_jax`"
    teacher = _model_link(facts.teacher)
    return f"distilled from {teacher} with `adakd_jax` (token-adaptive knowledge distillation)"


def _is_hub_id(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None and (
        not name.endswith(".gguf")
    )


def _front_matter(facts: CardFacts) -> str:
    # The hub accepts as base model only what is on the hub.
    base = facts.base or facts.teacher
    base_model = base if base and _is_hub_id(base) else None
    licences = licence_ids(facts.teacher_licence or "unknown")
    return ModelCardData(
        base_model=base_model,
        # Several are a list on the hub, which this class writes as well.
        license=licences[0] if len(licences) == 1 else licences,  # pyright: ignore[reportArgumentType]
        library_name="transformers" if facts.base is None else "peft",
        pipeline_tag="text-generation",
        tags=list(TAGS),
    ).to_yaml()


def _model_link(name: str) -> str:
    return f"[{name}](https://huggingface.co/{name})" if _is_hub_id(name) else f"`{name}`"


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def _markdown_table(table: MetricTable) -> str:
    header = ["", *table.columns]
    lines = [header, ["---"] + ["---:"] * len(table.columns)]
    lines += [[name, *map(_number, row)] for name, row in table.rows.items()]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _reproduce(facts: CardFacts) -> str:
    text = _code("bash", shlex.join(facts.command))
    if facts.versions:
        listed = ", ".join(f"{package} {version}" for package, version in facts.versions.items())
        text += f"\n\nVersions: {listed}."
    return text


def _licence(facts: CardFacts) -> str:
    source = "model that was fine-tuned" if facts.teacher is None else "teacher"
    if facts.teacher_licence is None:
        return (
            f"The files of the {source} do not state its licence. Find it out before you use or "
            "share this model: it is bound by those terms."
        )
    return (
        f"That of the {source}: {facts.teacher_licence}. "
        "The terms of the training data apply as well."
    )
