"""The routers that the interface is made of.

Their routes are whole: the application takes them as they are, where `include_router` would make each of them a second
time, a fifth of a second at the start, and look for each request twice.
"""

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute

from app.http.queries import known_query


def router(tag: str, prefix: str = "") -> APIRouter:
    """A router whose routes refuse query parameters that they do not know."""
    return APIRouter(
        prefix=prefix, tags=[tag], dependencies=[Depends(known_query)], generate_unique_id_function=operation_id
    )


def probes(tag: str) -> APIRouter:
    """A router whose routes take whatever parameters come: probes may carry what they like."""
    return APIRouter(tags=[tag], generate_unique_id_function=operation_id)


def operation_id(route: APIRoute) -> str:
    """A route's name in the OpenAPI document."""
    return route.name
