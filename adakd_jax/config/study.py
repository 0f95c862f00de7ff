"""A study: methods × seeds over one base run, and how they are compared."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt

from adakd_jax.config.run import RunConfig
from adakd_jax.config.stage import Check, Conflict, Stage
from adakd_jax.config.suites import SuiteName

# A method names a folder and a row of a Markdown table.
MethodName = Annotated[str, Field(pattern=r"^[\w+][\w+\-=., ()%]*$")]


def _each_once(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) != len(seeds):
        unique = ",".join(map(str, dict.fromkeys(seeds)))
        raise ValueError(f"a seed stands twice; did you mean {unique}?")
    return seeds


def _baseline_is_a_method(baseline: str, methods: Mapping[str, Any]) -> Conflict | None:
    if baseline in methods:
        return None
    return Conflict(f"no method is called {baseline!r}", f"one of {', '.join(methods)}")


def _compares_methods(against: Mapping[str, str], methods: Mapping[str, Any]) -> Conflict | None:
    unknown = [name for name in [*against, *against.values()] if name not in methods]
    if not unknown:
        return None
    return Conflict(f"no method is called {unknown[0]!r}", f"names out of {', '.join(methods)}")


def _probes_are_methods(
    probes: tuple[str, ...], methods: Mapping[str, Any], baseline: str
) -> Conflict | None:
    unknown = [name for name in probes if name not in methods]
    if unknown:
        return Conflict(f"no method is called {unknown[0]!r}", f"names out of {', '.join(methods)}")
    if baseline in probes:
        return Conflict("the baseline has all seeds, to compare others with", "other methods")
    return None


def _only_of_quality(measure: str, first: Any, suites: tuple[str, ...]) -> Conflict | None:
    if measure == "quality" or (first is None and not suites):
        return None
    return Conflict("seconds of a step depend on neither", "measure: quality")


class OverheadConfig(Stage):
    """How seconds per step are measured: methods take turns, so that a slow spell hits them all."""

    rounds: PositiveInt = Field(default=5, description="turns of each method")
    steps: PositiveInt = Field(
        default=3, description="timed steps of a turn, after one that is not timed"
    )


class StudyConfig(Stage):
    """What is compared, and where the results go."""

    checks: ClassVar[tuple[Check, ...]] = (
        Check(("baseline", "methods"), _baseline_is_a_method),
        Check(("against", "methods"), _compares_methods),
        Check(("probes", "methods", "baseline"), _probes_are_methods),
        Check(("measure", "first", "suites"), _only_of_quality),
    )
    settings_of: ClassVar[Mapping[str, type[Stage]]] = {"run": RunConfig, "first": RunConfig}

    base: str = Field(
        min_length=1,
        description="YAML file of a run, as for adakd_jax.train: what all runs have in common; "
        "relative to the working directory",
    )
    run: dict[str, Any] = Field(
        default={},
        description="settings of all runs, over those of `base`; each is a flag: --run.KEY VALUE, "
        "with the keys of adakd_jax.train",
    )
    first: dict[str, Any] | None = Field(
        default=None,
        description="settings, over those of all runs, of one run that is trained before all "
        "methods; they start from its student; null: from the student of `base`",
    )
    output: str = Field(
        min_length=1, description="folder of the runs, tables and plots; local or gs://"
    )
    measure: Literal["quality", "overhead"] = Field(
        default="quality",
        description="quality: train every method with every seed and measure held-out rows; "
        "overhead: seconds and memory of a training step of every method",
    )
    seeds: Annotated[tuple[NonNegativeInt, ...], AfterValidator(_each_once)] = Field(
        default=(0, 1, 2), min_length=1, description="seed of each run of a method"
    )
    suites: tuple[SuiteName, ...] = Field(
        default=(),
        description="named sets that every student is measured on besides the held-out rows, comma "
        "separated; as many rows of each, at most, as of those",
    )
    suite_data: str | None = Field(
        default=None,
        description="folder with a file of each suite, self_inst.jsonl and so on, as for "
        "adakd_jax.evaluate; null: from the hub",
    )
    methods: dict[MethodName, dict[str, Any]] = Field(
        min_length=1,
        description="name → settings that make the method, over those of all runs; names are of "
        "letters, digits, spaces and + - = . , ( ) % _",
    )
    probes: tuple[MethodName, ...] = Field(
        default=(),
        description="methods that only the first seed is run of, after all others with all seeds",
    )
    baseline: str = Field(description="the method that the others are compared with")
    against: dict[str, str] = Field(
        default={}, description="method → the method it is compared with, where not `baseline`"
    )
    budget_hours: PositiveFloat | None = Field(
        default=None, description="hours of computing that the study is meant to take; reported"
    )
    resamples: PositiveInt = Field(
        default=2000, description="bootstrap resamples of the held-out examples"
    )
    keep_checkpoints: bool = Field(
        default=False, description="keep the checkpoints of finished runs, to export or measure"
    )
    overhead: OverheadConfig = Field(
        default=OverheadConfig(), description="how `measure: overhead` takes time"
    )
