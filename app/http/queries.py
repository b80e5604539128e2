"""Query parameters: one that a route does not know is refused, for a misspelt option would do nothing in silence."""

from fastapi import Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.params import ParamTypes
from fastapi.routing import APIRoute


async def known_query(request: Request) -> None:
    """A dependency for every route of a router. Raises the same refusal as an unknown field of a body."""
    if not request.query_params:
        return
    known = _names(request.scope["route"])
    found = [
        {"type": "extra_forbidden", "loc": ("query", name), "msg": "Extra inputs are not permitted", "input": value}
        for name, value in request.query_params.items()
        if name not in known
    ]
    if found:
        raise RequestValidationError(found)


def _names(route: APIRoute) -> frozenset[str]:
    """The query parameters a route declares, one by one or as a model, whose fields do not say where they stand."""
    fields = get_flat_params(route.dependant)
    return frozenset(
        field.alias for field in fields if getattr(field.field_info, "in_", ParamTypes.query) == ParamTypes.query
    )
