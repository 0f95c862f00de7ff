"""What all settings have in common: immutable, strict, and told about every mistake at once."""

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, NamedTuple, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError
from pydantic_core.core_schema import ErrorType

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Ratio = Annotated[float, Field(gt=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]

COMBINATION = "combination"
_STANDARD_ERRORS = frozenset(get_args(ErrorType))


class Conflict(NamedTuple):
    """What is wrong with a combination of settings, and what would be valid instead."""

    message: str
    valid: str


class Check(NamedTuple):
    """A rule over several settings: reads the values of `keys`, in order; None when they agree.

    Keys are relative to the stage that lists the check, dotted below it. A key of a variant that
    was not chosen (`distill.focus.ratio` under `latf`) has no value, and the check does not run.
    """

    keys: tuple[str, ...]
    rule: Callable[..., Conflict | None]


class Stage(BaseModel):
    """Base of all settings: immutable, strict about unknown keys, all mistakes in one error.

    A check runs whenever the values it reads are valid, however wrong the rest is; its error holds
    the message, what would be valid, and the keys it read with their values under `ctx["given"]`.
    `settings_of` names the keys that hold some settings of another stage: these merge, and are
    flags, as that stage's own do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    checks: ClassVar[tuple[Check, ...]] = ()
    settings_of: ClassVar[Mapping[str, type["Stage"]]] = MappingProxyType({})

    @model_validator(mode="wrap")
    @classmethod
    def _report_all_mistakes(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not cls.checks:
            return handler(data)
        try:
            built = handler(data)
        except ValidationError as error:
            mistakes = [_again(details) for details in error.errors(include_url=False)]
            conflicts = _conflicts(cls.checks, known_values(cls, data))
            raise ValidationError.from_exception_data(cls.__name__, mistakes + conflicts) from None
        conflicts = _conflicts(cls.checks, flatten(built))
        if conflicts:
            raise ValidationError.from_exception_data(cls.__name__, conflicts)
        return built


def flatten(stage: Stage) -> dict[str, Any]:
    """Returns every setting by dotted key, stages included: `{"data": …, "data.template": …}`."""
    values: dict[str, Any] = {}
    for name in type(stage).model_fields:
        _put(values, name, getattr(stage, name))
    return values


def known_values(stage: type[Stage], data: Any) -> dict[str, Any]:
    """Returns, by dotted key, the settings of partly wrong `data` that are valid on their own."""
    values: dict[str, Any] = {}
    if not isinstance(data, Mapping):
        return values
    for name, field in stage.model_fields.items():
        if name not in data:
            if not field.is_required():
                _put(values, name, field.get_default(call_default_factory=True))
            continue
        try:
            _put(values, name, _adapter(stage, name).validate_python(data[name]))
        except ValidationError:
            inner = chosen_stage(field.annotation, data[name])
            if inner is not None:
                below = known_values(inner, data[name])
                values.update({f"{name}.{key}": value for key, value in below.items()})
    return values


def stages_in(annotation: Any) -> dict[str, type[Stage]]:
    """Returns the stages a setting may hold, by their `kind`; a lone stage without one by ''."""
    if isinstance(annotation, type) and issubclass(annotation, Stage):
        kind = annotation.model_fields.get("kind")
        return dict.fromkeys(get_args(kind.annotation) if kind else ("",), annotation)
    found: dict[str, type[Stage]] = {}
    for part in get_args(annotation):
        found.update(stages_in(part))
    return found


def chosen_stage(annotation: Any, value: Any) -> type[Stage] | None:
    """Returns the stage that `value` (a mapping) is meant for; None if that cannot be told."""
    if not isinstance(value, Mapping):
        return None
    options = stages_in(annotation)
    return options.get("") or options.get(str(value.get("kind")))


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    values[name] = value
    if isinstance(value, Stage):
        values.update({f"{name}.{key}": inner for key, inner in flatten(value).items()})


def _conflicts(checks: tuple[Check, ...], values: Mapping[str, Any]) -> list[InitErrorDetails]:
    errors = []
    for check in checks:
        if not all(key in values for key in check.keys):
            continue
        given = {key: values[key] for key in check.keys}
        conflict = check.rule(*given.values())
        if conflict is not None:
            context = {**conflict._asdict(), "given": given}
            kind = PydanticCustomError(COMBINATION, "{message}; valid: {valid}", context)
            where = tuple(check.keys[0].split("."))
            errors.append(InitErrorDetails(type=kind, loc=where, input=given))
    return errors


def _again(error: ErrorDetails) -> InitErrorDetails:
    """Turns a reported error into one that can be raised a second time, beside others."""
    kind: Any = error["type"]
    if kind == COMBINATION:
        kind = PydanticCustomError(COMBINATION, "{message}; valid: {valid}", error.get("ctx"))
    elif kind not in _STANDARD_ERRORS:
        kind = PydanticCustomError(kind, "{text}", {**error.get("ctx", {}), "text": error["msg"]})
    details = InitErrorDetails(type=kind, loc=error["loc"], input=error["input"])
    if "ctx" in error:
        details["ctx"] = error["ctx"]
    return details


@cache
def _adapter(stage: type[Stage], name: str) -> TypeAdapter[Any]:
    field = stage.model_fields[name]
    kind: Any = Annotated[field.annotation, field]  # pyright: ignore[reportInvalidTypeForm]
    return TypeAdapter(kind)
