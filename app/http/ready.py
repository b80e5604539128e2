"""Whether this process can do its work: the database answers, its tables are this program's, the store takes files."""

import tempfile

from sqlalchemy.exc import SQLAlchemyError

from app.config import Settings
from app.db.migrate import is_current
from app.db.session import Database
from app.errors import Complaint


def complaints(settings: Settings, database: Database) -> list[Complaint]:
    """What is missing, a complaint each; empty when the server is ready."""
    return [complaint for complaint in (_database(database), _store(settings)) if complaint is not None]


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
    try:
        settings.store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.store) as file:
            file.write(b"ready?")
            file.flush()
    except OSError as error:
        hint = "Make the data folder writable for this user, or free some space."
        return Complaint("store", f"The model store cannot be written ({error.strerror})", hint=hint)
    return None
