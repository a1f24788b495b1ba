"""Settings: read once, from a mapping, into a frozen object. Nothing else looks at the environment."""

import hashlib
import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from heatbox.errors import SettingsError

__all__ = ["Settings", "as_environment", "own_url", "read_settings"]

_PREFIX = "HEATBOX_"
_EVERY_ADDRESS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared with, not listened on
_OF_OTHERS = {
    "REDIS_URL": "redis_url",
    "LABEL_STUDIO_URL": "studio_url",
    "LABEL_STUDIO_API_KEY": "studio_api_key",
    "BASIC_AUTH_USER": "basic_auth_user",
    "BASIC_AUTH_PASS": "basic_auth_password",
}


class Settings(BaseModel):
    """Every setting of heatbox; the environment variable is `HEATBOX_` plus the name in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("heatbox")),
        description="Folder of the ledger, the private Redis and, unless set apart, the model store.",
    )
    store: Path | str | None = Field(
        default=None,
        description="Model store: a folder, or a URL that machines share (s3://bucket/models); default: HOME/models.",
    )
    database_url: str = Field(
        default="",
        description="Ledger that machines share, postgresql://USER:PASSWORD@HOST/DATABASE; default: SQLite in HOME.",
    )
    redis_url: str = Field(default="", description="Redis to use; empty: `heatbox up` starts a private one.")
    studio_url: str = Field(default="", description="Address of Label Studio, for background runs.")
    studio_api_key: SecretStr = Field(
        default=SecretStr(""), description="Label Studio's personal access token, or a legacy token."
    )
    host: str = Field(default="127.0.0.1", description="Address the web service listens on.")
    port: int = Field(default=9090, ge=0, le=65535, description="Port the web service listens on.")
    basic_auth_user: str = Field(
        default="", description="User whom Label Studio and browsers must name; empty: no login."
    )
    basic_auth_password: SecretStr = Field(default=SecretStr(""), description="Password of this user.")
    api_token: SecretStr = Field(
        default=SecretStr(""),
        description="Bearer token for everything but Label Studio's own routes, besides user and password.",
    )
    public_url: str = Field(
        default="",
        description="Address under which people reach the service, for links in predictions; default: HOST and PORT.",
    )
    local_roots: tuple[Path, ...] = Field(
        default=(), description="Folders, separated by ':', whose files tasks may name; empty: none."
    )
    private_hosts: tuple[str, ...] = Field(
        default=(),
        description="HOST or HOST:PORT, separated by spaces: at private addresses, but tasks may name them.",
    )
    ca_file: Path | None = Field(
        default=None, description="Further CA certificates (PEM) to trust, for Label Studio and pictures."
    )
    model: str = Field(
        default="", description="Model for the service, name or name@version; default: the active one."
    )
    explainer: str = Field(default="fused_cam", description="Explainer for the service.")
    explainer_options: tuple[str, ...] = Field(
        default=(), description="Its options, NAME=VALUE, separated by spaces."
    )
    fitter: str = Field(default="components", description="Box fitter for the service.")
    fitter_options: tuple[str, ...] = Field(
        default=(), description="Its options, NAME=VALUE, separated by spaces."
    )
    normalisation: Literal["max", "minmax"] = Field(
        default="max", description="How heatmaps become [0, 1]: max or minmax."
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="Box threshold as part of the heatmap's maximum; default: the explainer's, the card's, then 0.2.",
    )
    min_probability: float = Field(default=0.25, ge=0, le=1, description="Classes below are not explained.")
    max_labels: int = Field(default=3, ge=1, description="At most so many classes per picture.")
    min_mask_iou: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Boxes whose IoU with their part of the mask is lower are rejected.",
    )
    min_crop_probability: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Boxes whose crop has their label with less probability are rejected.",
    )
    predict_deadline: float = Field(
        default=80.0, gt=0, description="Seconds after which /predict answers with what is ready."
    )
    workers: int = Field(default=1, ge=1, description="Worker processes that `heatbox up` starts.")
    model_memory: int = Field(
        default=2 * 2**30,
        ge=0,
        description="Bytes of loaded models that a worker keeps; the least recently used go first.",
    )
    threads: int = Field(
        default=0, ge=0, description="Compute threads per worker; 0: cores divided by workers."
    )
    picture_seconds: float = Field(
        default=300.0,
        gt=0,
        description="Seconds after which a picture's process is ended; it is tried once more alone.",
    )
    job_memory: int = Field(
        default=0,
        ge=0,
        description="Bytes that a worker's process may have; 0: its share of four fifths of the machine's memory.",
    )
    max_bytes: int = Field(default=256 * 2**20, ge=1, description="Largest picture file in bytes.")
    max_pixels: int = Field(default=120_000_000, ge=1, description="Largest picture in pixels.")
    max_side: int = Field(default=65_500, ge=1, description="Longest picture side in pixels.")
    fetch_seconds: float = Field(
        default=60.0, gt=0, description="Seconds that fetching one picture may take altogether."
    )
    cache_bytes: int = Field(
        default=10 * 2**30,
        ge=0,
        description="Bytes of fetched pictures that are kept in HOME; 0: each for some minutes only.",
    )
    log_level: str = Field(
        default="info", pattern="^(debug|info|warning|error)$", description="Least severe log line."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="How log lines are written: text or json."
    )

    @field_validator("store", mode="before")
    @classmethod
    def _path_or_url(cls, value: object) -> object:
        return Path(value) if isinstance(value, str) and "://" not in value else value

    @field_validator("local_roots", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value

    @field_validator("explainer_options", "fitter_options", "private_hosts", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return tuple(value.split()) if isinstance(value, str) else value

    @field_validator("private_hosts")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value:
            from heatbox.hosts import read_host  # httpx takes a tenth of a second

            for host in value:
                read_host(host)
        return value

    @property
    def store_path(self) -> Path:
        """Folder of the model store; of one with a URL, the folder that keeps what was fetched."""
        if isinstance(self.store, str):
            digest = hashlib.sha256(self.store.rstrip("/").encode()).hexdigest()
            return self.home / "store-cache" / digest[:12]
        return self.store or self.home / "models"

    @property
    def people_url(self) -> str:
        """Address under which people reach the service; empty where that is not known."""
        own = own_url(self.host, self.port) if self.port and self.host not in _EVERY_ADDRESS else ""
        return (self.public_url or own).rstrip("/")

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger."""
        return self.database_url or f"sqlite:///{self.home / 'ledger.sqlite'}"


def own_url(host: str, port: int) -> str:
    """Return the address at which a heatbox that listens on this host and port is reached from the same machine.

    Raises:
        SettingsError: nobody knows the port beforehand.
    """
    if port == 0:
        raise SettingsError("HEATBOX_PORT is 0: a free port.", "Name heatbox's address with --backend.")
    reached = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read the settings from environment variables.

    Args:
        environment: for example `os.environ`; `REDIS_URL`, `LABEL_STUDIO_URL`, `LABEL_STUDIO_API_KEY`,
            `BASIC_AUTH_USER` and `BASIC_AUTH_PASS` are understood besides our own. An empty variable counts as not
            set.

    Raises:
        SettingsError: a value cannot be used; an unknown `HEATBOX_` variable counts as a spelling mistake.
    """
    values = {
        key.removeprefix(_PREFIX).lower(): value
        for key, value in environment.items()
        if key.startswith(_PREFIX) and value
    }
    values.pop("test_data", None)
    for variable, name in _OF_OTHERS.items():
        if environment.get(variable):
            values.setdefault(name, environment[variable])
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            raise _unknown(name) from error
        raise SettingsError(
            f"{_variable(name)} cannot be {first['input']!r}: {first['msg']}.",
            f"It is: {Settings.model_fields[name].description}",
        ) from error
    _check_login(settings)
    return settings


def as_environment(settings: Settings) -> dict[str, str]:
    """Return the settings as the variables that `read_settings` reads, for a process of ours."""
    values = settings.model_dump(exclude_none=True)
    return {_variable(name): _text(name, value) for name, value in values.items()}


def _text(name: str, value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    separator = " " if name.endswith(("_options", "_hosts")) else os.pathsep
    return separator.join(map(str, value)) if isinstance(value, tuple) else str(value)


def _check_login(settings: Settings) -> None:
    user, password = settings.basic_auth_user, settings.basic_auth_password.get_secret_value()
    if bool(user) != bool(password):
        given, missing = ("user", "password") if user else ("password", "user")
        raise SettingsError(
            f"There is a {given} for the web service and no {missing}.",
            f"Set both, or unset both: {_variable('basic_auth_user')} and {_variable('basic_auth_password')}.",
        )
    if ":" in user:
        raise SettingsError(
            f"{_variable('basic_auth_user')} has a colon, which ends a user's name in HTTP.",
            "Take another name.",
        )


def _unknown(name: str) -> SettingsError:
    close = get_close_matches(name, Settings.model_fields, n=1)
    hint = f"Did you mean {_variable(close[0])}?" if close else "Unset it."
    return SettingsError(
        f"{_variable(name)} is not a setting.", f"{hint} All are listed in docs/reference/settings.md."
    )


def _variable(name: str) -> str:
    return _PREFIX + name.upper()
