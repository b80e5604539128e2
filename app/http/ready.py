"""Whether this process can do its work: the database answers, its tables are this program's, the store takes files."""

import logging

from sqlalchemy.exc import SQLAlchemyError

from app import store
from app.config import Settings
from app.db.migrate import NoSuchRevision, is_current, migrate
from app.db.session import Database
from app.errors import Complaint, Unavailable
from app.services import shipped

log = logging.getLogger("gatecast")


def complaints(settings: Settings, database: Database) -> list[Complaint]:
    """What is missing, a complaint each; empty when the server is ready."""
    return [complaint for complaint in (_database(database), _store(settings)) if complaint is not None]


def prepare(settings: Settings, database: Database) -> None:
    """Make the database ready for a server that starts: a SQLite file is migrated, PostgreSQL only looked at. Raises
    Unavailable."""
    if database.is_sqlite:
        migrated(settings, database)
    check(settings, database)


def check(settings: Settings, database: Database) -> None:
    """Raises Unavailable unless the database answers, its tables are this program's, and an object store can be written
    where one is named."""
    if complaint := _database(database):
        raise Unavailable(f"{complaint.message}.", code="not-ready", errors=[complaint])
    store.greet(settings.store)


def migrated(settings: Settings, database: Database, revision: str = "head", own_base: str | None = None) -> None:
    """Bring the database to a revision, and at the newest one put the model that comes with the program into it, after
    a model of somebody's own that has its name got the name `own_base`. Raises Unavailable when the database does not
    answer or does not know the revision, or the store takes no files, and what `shipped.rename_own` raises."""
    store.greet(settings.store)
    try:
        migrate(database, revision)
        if own_base is not None:
            shipped.rename_own(database, own_base)
        if revision == "head" and (why_not := shipped.install(settings, database)):
            log.warning("%s", why_not)
    except NoSuchRevision as error:
        raise Unavailable(
            f"The database cannot be brought to {revision!r}: {str(error).rstrip('.')}.", code="not-ready"
        ) from error
    except SQLAlchemyError as error:
        raise Unavailable(f"The database cannot be used: {_cause(error)}.", code="not-ready") from error


def _cause(error: SQLAlchemyError) -> str:
    """The driver's first line, for the operator's terminal only."""
    return str(getattr(error, "orig", error)).splitlines()[0].rstrip(".")


def _database(database: Database) -> Complaint | None:
    try:
        current = is_current(database)
    except SQLAlchemyError as error:
        cause = type(error).__name__  # not its text, which names hosts and users
        return Complaint("database", f"The database does not answer ({cause})", hint="Start it, or check its URL.")
    if not current:
        return Complaint("migrations", "The database's tables are not this program's", hint="Run `gatecast migrate`.")
    return None


def _store(settings: Settings) -> Complaint | None:
    if message := store.missing(settings.store):
        hint = "Make the data folder writable for this user, or free some space."
        if settings.store_url is not None:
            hint = "Start the object store, or check its address and the credentials."
        return Complaint("store", message, hint=hint)
    return None
