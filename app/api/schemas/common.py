"""What the wire classes share: strict input, plain output, and the names of datasets, models and aliases."""

from typing import Annotated, Any

from fastapi import Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
ALIAS = r"^(?![0-9]+$)[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
MODEL = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}(@[A-Za-z0-9][A-Za-z0-9._-]{0,62})?$"
REFERENCE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}(@[A-Za-z0-9][A-Za-z0-9._-]{0,62}|/[1-9][0-9]{0,8})?$"
JOB = r"^job_[0-9a-f-]{32,36}$"


class In(BaseModel):
    """A request body: a field nobody knows is refused, so that a misspelt option cannot pass in silence."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Out(BaseModel):
    """An answer's body."""

    model_config = ConfigDict(ser_json_inf_nan="null")


def _not_all_digits(value: str) -> str:
    if value.isdigit():
        raise ValueError("an alias needs a character that is not a digit: a bare number is a version")
    return value


# The lookahead that forbids all digits is for readers of the OpenAPI; pydantic's engine has none, so a function checks.
_ALIAS_SCHEMA: dict[str, Any] = {"pattern": ALIAS}

# Names in a body.
DatasetName = Annotated[
    str, Field(pattern=NAME, description="Name of a dataset: letters, digits, `.`, `_`, `-`.", examples=["gasoline"])
]
ModelName = Annotated[
    str, Field(pattern=NAME, description="Name of a model: letters, digits, `.`, `_`, `-`.", examples=["fuel"])
]
AliasName = Annotated[
    str,
    Field(
        pattern=NAME,
        description="Name of an alias: as a model's, but not all digits.",
        examples=["champion"],
        json_schema_extra=_ALIAS_SCHEMA,
    ),
    AfterValidator(_not_all_digits),
]
ModelReference = Annotated[
    str,
    Field(
        pattern=REFERENCE,
        description="A model: `name` (its champion), `name@alias` or `name/3`.",
        examples=["fuel"],
    ),
]

# The same names in a path.
DatasetPath = Annotated[str, Path(pattern=NAME, description="Name of the dataset.", examples=["gasoline"])]
ModelPath = Annotated[str, Path(pattern=NAME, description="Name of the model.", examples=["fuel"])]
ModelAliasPath = Annotated[
    str, Path(pattern=MODEL, description="Name of the model, or `name@alias`.", examples=["fuel"])
]
AliasPath = Annotated[
    str,
    Path(pattern=NAME, description="Name of the alias.", examples=["champion"], json_schema_extra=_ALIAS_SCHEMA),
    AfterValidator(_not_all_digits),
]
NumberPath = Annotated[int, Path(ge=1, le=2**31 - 1, description="Number of the revision or version.", examples=[1])]
KeyPath = Annotated[
    str,
    Path(
        min_length=1,
        max_length=255,
        description="Key of the series; it may contain `/`.",
        examples=["us_gasoline"],
    ),
]
JobPath = Annotated[
    str,
    Path(max_length=64, description="Id of the job.", examples=["job_019a8c5e-7b1c-7d3e-9f00-3c2b1a098765"]),
]
