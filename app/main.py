"""create_app: the ASGI application, from settings alone."""

from fastapi import FastAPI

from app.api import backtests, datasets, forecasts, jobs, registry, system
from app.config import Settings
from app.db.session import Database
from app.http.problems import install_problems


def create_app(settings: Settings) -> FastAPI:
    """The application over one database and one data folder. Opens no connection and starts no thread of its own."""
    app = FastAPI(title="Gatecast")
    app.state.settings = settings
    app.state.database = Database(settings.url)
    install_problems(app)
    for module in (system, datasets, jobs, registry, forecasts, backtests):
        app.include_router(module.router)
    return app
