"""Search spaces: for fields of a TrainConfig the choices, or the range, that trials take their values from."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from app.errors import Complaint, Invalid
from models import TrainConfig

Space = Mapping[str, Any]  # field -> list of choices, or {low, high} with step or log
MOST_FIELDS, MOST_CHOICES, MOST_STEPS = 16, 100, 100_000
LOOKED_AT = 2000  # combinations tried before a space is let in
# What is searched where nobody says what; fields that the config fixes are left out.
USUAL: dict[str, Any] = {
    "cell": ["gru", "lstm"],
    "layers": [1, 2],
    "hidden": [32, 64, 128],
    "learning_rate": {"low": 1e-3, "high": 2e-2, "log": True},
    "batch": [64, 128, 256],
    "scaling": ["std", "last", "mean"],
}
MEASURE = "what a trial's value is taken over would change with it, and trials could not be compared"
NOT_SEARCHED = {
    "horizon": MEASURE,
    "season": MEASURE,
    "quantiles": MEASURE,
    "minimum": "it is a fact about the data: give it in config",
    "maximum": "it is a fact about the data: give it in config",
    "unfrozen": "trials start from nothing, so there is nothing to freeze",
    "seed": "the best of many seeds is luck, which the next forecast will not have",
}
FIXED = TrainConfig()


def usual(config: TrainConfig) -> dict[str, Any]:
    """The space that is searched unasked: of the usual fields those that the config leaves open. Raises Invalid when
    none is left."""
    found = {name: values for name, values in USUAL.items() if getattr(config, name) == getattr(FIXED, name)}
    if not found:
        raise _refusal([_complaint("space", "", "config fixes every field that is searched unasked: name others")])
    return found


def check(space: Space, config: TrainConfig) -> None:
    """Raises Invalid, which points at each field and value that cannot be searched beside `config`, and at the space
    when no combination of its values makes a config."""
    known = {field.name for field in fields(TrainConfig)}
    wrong: list[Complaint] = []
    if not 1 <= len(space) <= MOST_FIELDS:
        raise _refusal([_complaint("space", "", f"expected 1 to {MOST_FIELDS} fields, got {len(space)}")])
    for name, values in space.items():
        if name not in known:
            short = name[:80]  # and as a JSON pointer has it (RFC 6901)
            where = "/" + short.replace("~", "~0").replace("/", "~1")
            wrong.append(_complaint(short, where, f"expected a field of config, got {short!r}"))
        elif name in NOT_SEARCHED:
            wrong.append(_complaint(name, f"/{name}", f"cannot be searched: {NOT_SEARCHED[name]}"))
        elif getattr(config, name) != getattr(FIXED, name):
            fixed = getattr(config, name)
            wrong.append(_complaint(name, f"/{name}", f"is fixed to {fixed!r} in config: search it or fix it"))
        else:
            wrong += _values(name, values, config)
    if wrong:
        raise _refusal(wrong)
    if (reason := _hopeless(space, config)) is not None:
        raise _refusal(
            [_complaint("space", "", f"no combination of its values makes a config; the last tried: {reason}")]
        )


def is_range(values: Any) -> bool:
    return isinstance(values, Mapping)


def size(space: Space) -> float:
    """How many combinations there are; infinite where a range has no steps."""
    return math.prod(float(_count(name, values)) for name, values in space.items())


def combinations(space: Space) -> Iterator[dict[str, Any]]:
    """All combinations of a space without stepless ranges, in order."""
    names = list(space)
    for values in itertools.product(*(_listed(name, space[name]) for name in names)):
        yield dict(zip(names, values, strict=True))


def is_whole(name: str) -> bool:
    """Whether a field takes whole numbers alone."""
    return int in _kinds(name) and float not in _kinds(name)


# ---------------------------------------------------------------- one field


@cache
def _adapter() -> TypeAdapter[TrainConfig]:
    return TypeAdapter(TrainConfig)


@cache
def _kinds(name: str) -> frozenset[type]:
    """The plain types of a field: `int | None` -> int, NoneType."""
    from typing import get_args, get_type_hints

    hint = get_type_hints(TrainConfig)[name]
    return frozenset(one for one in (get_args(hint) or (hint,)) if isinstance(one, type))


def _values(name: str, values: Any, config: TrainConfig) -> list[Complaint]:
    if is_range(values):
        return _range(name, cast(Mapping[str, Any], values), config)
    choices = cast(Sequence[Any], values)
    if not 1 <= len(choices) <= MOST_CHOICES:
        return [_complaint(name, f"/{name}", f"expected 1 to {MOST_CHOICES} choices, got {len(choices)}")]
    wrong: list[Complaint] = []
    for place, value in enumerate(choices):
        if value in choices[:place]:
            wrong.append(_complaint(name, f"/{name}/{place}", f"{value!r} is there twice"))
        elif (reason := _fault(name, value, config)) is not None:
            wrong.append(_complaint(name, f"/{name}/{place}", reason))
    return wrong


def _range(name: str, values: Mapping[str, Any], config: TrainConfig) -> list[Complaint]:
    low, high, step, log = (values.get(part) for part in ("low", "high", "step", "log"))
    where = f"/{name}"
    if not _kinds(name) & {int, float} or bool in _kinds(name):
        return [_complaint(name, where, "expected a list of choices: only numbers have a range")]
    wrong = [
        _complaint(name, f"{where}/{part}", reason)
        for part in ("low", "high")
        if (reason := _fault(name, values.get(part), config, needed=True)) is not None
    ]
    if wrong:
        return wrong
    assert low is not None
    assert high is not None
    whole = "a whole number above 0" if is_whole(name) else "a number above 0"
    refused = (
        (low > high, "low", f"expected at most high {high}, got {low}"),
        (log and step is not None, "step", "expected step or log, got both"),
        (log and low <= 0, "low", f"expected above 0 with log, got {low}"),
        (step is not None and not _is_step(name, step), "step", f"expected {whole}, got {_short(step)}"),
        (step is not None and step > high - low > 0, "step", f"expected at most high - low, got {_short(step)}"),
        (
            step is not None and step > 0 and _steps(low, high, step) > MOST_STEPS,
            "step",
            f"expected at most {MOST_STEPS:,} values from low to high, or no step, got {_short(step)}",
        ),
    )
    return [_complaint(name, f"{where}/{part}", reason) for wrong, part, reason in refused if wrong][:1]


def _steps(low: float, high: float, step: float) -> float:
    """How many values a range has; infinite where the step is too small to say."""
    return 1 if step > high - low else (high - low) // step + 1


def _short(value: Any) -> str:
    return "a number of many digits" if isinstance(value, int) and abs(value) >= 10**18 else str(value)


def _is_step(name: str, step: float) -> bool:
    return step > 0 and (not is_whole(name) or step == int(step))


def _fault(name: str, value: Any, config: TrainConfig, needed: bool = False) -> str | None:
    """What is wrong with a field's value, be it that config does not allow it; None: nothing."""
    if value is None:
        return None if type(None) in _kinds(name) and not needed else "expected a value, got null"
    if isinstance(value, bool) != (bool in _kinds(name)):
        return f"expected {'true or false' if bool in _kinds(name) else 'no boolean'}, got {value!r}"
    if _kinds(name) & {int, float} and not isinstance(value, int if is_whole(name) else int | float):
        return f"expected a {'whole ' if is_whole(name) else ''}number, got {value!r}"
    try:
        _adapter().validate_python({**config.document(), name: value}, strict=False)
    except ValidationError as error:
        return error.errors()[0]["msg"].removeprefix("Value error, ").removeprefix(f"{name}: ")
    return None


def _listed(name: str, values: Any) -> list[Any]:
    """All values of choices, or of a range with steps."""
    if not is_range(values):
        return list(values)
    low, high, step = values["low"], values["high"], values.get("step") or 1
    return [low + place * step for place in range(int((high - low) / step + 1e-9) + 1)]


def _count(name: str, values: Any) -> float:
    if not is_range(values):
        return len(values)
    if values["low"] == values["high"]:
        return 1
    if not is_whole(name) and not values.get("step"):
        return math.inf
    low, high, step = values["low"], values["high"], values.get("step") or 1
    return int((high - low) / step + 1e-9) + 1


def _hopeless(space: Space, config: TrainConfig) -> str | None:
    """The reason why the last combination is none, if all are so and few enough to look at. Of a range without steps
    one value does: what may stand beside what is a matter of names and whole numbers."""
    counts = {name: _count(name, values) for name, values in space.items()}
    few = {name: values if counts[name] <= LOOKED_AT else [values["low"]] for name, values in space.items()}
    reason = None
    for params in itertools.islice(combinations(few), LOOKED_AT):
        try:
            config.replace(**params)
        except ValueError as error:
            reason = str(error)
        else:
            return None
    whole = all(count <= LOOKED_AT or count == math.inf for count in counts.values())
    return reason if whole and size(few) <= LOOKED_AT else None


def _complaint(name: str, where: str, message: str) -> Complaint:
    return Complaint("space", f"{name}: {message}", pointer=f"/space{where}")


def _refusal(wrong: list[Complaint]) -> Invalid:
    more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return Invalid(f"The search space: {wrong[0].message}{more}.", errors=wrong)
