"""Housekeeping that a database away for a while must not end."""

import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

log = logging.getLogger("gatecast.http")


def attempt(chore: Callable[..., Any], *arguments: Any) -> None:
    """Do a chore; where the database does not answer, it is left for the next time."""
    try:
        chore(*arguments)
    except SQLAlchemyError as error:
        log.warning("%s is put off: the database does not answer (%s)", chore.__name__, type(error).__name__)
