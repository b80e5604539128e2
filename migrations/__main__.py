"""`python -m migrations "add a column"`: drafts the next migration, from where the tables and the migrations differ."""

import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.script import ScriptDirectory

from app.db.migrate import config, migrate
from app.db.session import Database


def main() -> None:
    message = " ".join(sys.argv[1:]).strip()
    if not message:
        sys.exit('say what the migration does:  make migration m="add a column"')
    head = ScriptDirectory.from_config(config()).get_current_head()
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{Path(folder, 'drafting.db')}")
        migrate(database)
        with database.engine.connect() as connection:
            command.revision(config(connection), message, autogenerate=True, rev_id=f"{int(head or 0) + 1:04d}")
        database.close()


main()
