"""Housekeeping that a database or an object store away for a while must not end."""

import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from app.errors import StoreAway

log = logging.getLogger("gatecast.http")


def attempt(chore: Callable[..., Any], *arguments: Any) -> None:
    """Do a chore; where the database or the object store does not answer, it is left for the next time."""
    try:
        chore(*arguments)
    except SQLAlchemyError as error:
        log.warning("%s is put off: the database does not answer (%s)", chore.__name__, type(error).__name__)
    except StoreAway as error:
        log.warning("%s is put off: %s", chore.__name__, error.detail)
