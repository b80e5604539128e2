"""Settings: every environment variable of the server, described, validated once, frozen.

Built at the edge (`Settings()` in `__main__` and in tests) and handed down; nothing below reads the environment.
Hyper-parameters are never settings: they travel in the job, then in the manifest.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024 * 1024
BUCKET = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9][A-Za-z0-9._-]*)*/?"


@dataclass(frozen=True)
class Bucket:
    """A place in an object store, and the folder of this machine that holds copies of at most `limit` bytes of it."""

    url: str
    cache: Path
    limit: int


class Settings(BaseSettings):
    """One field per environment variable `GATECAST_<NAME>`; secrets may come from a file named by
    `GATECAST_<NAME>_FILE`."""

    model_config = SettingsConfigDict(env_prefix="GATECAST_", frozen=True, extra="ignore")

    data: Path = Field(Path("gatecast-data"), description="Folder of the SQLite file, the model store and the spool.")
    database_url: SecretStr | None = Field(
        None, description="PostgreSQL URL; left out, a SQLite file in the data folder is used. May come from a file."
    )
    host: str = Field("127.0.0.1", description="Address to listen on; any other than loopback needs an API key.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    api_key: SecretStr | None = Field(
        None, description="Key that guards every route but /healthz, /readyz and /docs. May come from a file."
    )
    allow_open: bool = Field(False, description="Serve beyond loopback without an API key.")
    root_path: str = Field(
        "", description="Path prefix under which a proxy publishes the server, such as /forecasting."
    )
    forwarded_allow_ips: str = Field(
        "127.0.0.1", description="Proxies whose X-Forwarded-* headers are believed, comma separated."
    )
    cors_origins: tuple[str, ...] = Field((), description="Web origins allowed to call the API, as a JSON list.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log line written."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Log lines for people (text) or for machines (json)."
    )
    max_body_bytes: int = Field(1024 * MIB, ge=1024, description="Largest upload accepted, as sent.")
    max_inflated_bytes: int = Field(8192 * MIB, ge=1024, description="Largest upload accepted, after decompression.")
    max_json_bytes: int = Field(64 * MIB, ge=1024, description="Largest JSON request other than an upload.")
    max_columns: int = Field(10_000, ge=3, description="Most columns a file may have.")
    max_series: int = Field(1_000_000, ge=1, description="Most series a dataset may hold.")
    max_span: int = Field(10_000_000, ge=1000, description="Most steps between a series' first and last point.")
    max_horizon: int = Field(10_000, ge=1, description="Longest horizon of a forecast, in steps.")
    max_queue: int = Field(1000, ge=1, description="Most jobs waiting at once; more are refused with 429.")
    max_running: int | None = Field(
        None,
        ge=1,
        description="Most jobs that run at once, of one workspace; all clients of a server share one. "
        "Left out: as many as there are slots.",
    )
    store_url: str | None = Field(
        None, description="Object store for the versions, s3://bucket/prefix; left out, a folder in the data folder."
    )
    cache_bytes: int = Field(
        10 * 1024 * MIB, ge=MIB, description="Size of the local copies of an object store's versions, the last used."
    )
    max_versions_loaded: int = Field(
        64,
        ge=1,
        description="Versions kept open by one API process; MiB of series' ends kept, singly and again by dataset.",
    )
    slots: int = Field(
        1, ge=1, le=64, description="Jobs a worker runs at once on each of its devices; on a GPU as memory allows."
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Device the worker trains on.")

    @model_validator(mode="before")
    @classmethod
    def _read_secret_files(cls, values: Any) -> Any:
        for name in ("api_key", "database_url"):
            path = os.environ.get(f"GATECAST_{name.upper()}_FILE")
            if path and not values.get(name):
                try:
                    values[name] = Path(path).read_text(encoding="utf-8").strip()
                except OSError as error:
                    raise ValueError(f"GATECAST_{name.upper()}_FILE names {path!r}: {error.strerror}") from error
        return values

    @field_validator("api_key")
    @classmethod
    def _key_is_not_empty(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 8:
            raise ValueError("an API key needs at least 8 characters")
        return value

    @field_validator("store_url")
    @classmethod
    def _store_is_a_bucket(cls, value: str | None) -> str | None:
        if not value:
            return None
        if not re.fullmatch(BUCKET, value):
            raise ValueError("expected s3://bucket or s3://bucket/prefix; credentials go into AWS_* variables")
        return value

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the database; psycopg 3 is named for any PostgreSQL URL."""
        if self.database_url is None:
            return f"sqlite:///{(self.data / 'gatecast.db').absolute()}"
        url = self.database_url.get_secret_value()
        for scheme in ("postgres://", "postgresql://"):
            if url.startswith(scheme):
                return "postgresql+psycopg://" + url[len(scheme) :]
        return url

    @property
    def store(self) -> Path | Bucket:
        """The model store: a folder, or a bucket with the folder of its copies."""
        if self.store_url is None:
            return self.data / "models"
        return Bucket(self.store_url.rstrip("/"), self.data / "copies", self.cache_bytes)

    @property
    def spool(self) -> Path:
        """Folder where request bodies are kept while they are read; what a killed process left is swept hours later."""
        return self.data / "spool"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints of unfinished jobs, one sub-folder a job."""
        return self.data / "checkpoints"
