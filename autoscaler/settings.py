"""Settings of the autoscaler: flags, ``GROVE_SCALER_*`` variables and a YAML file, as the server has them.

Flags win over variables, variables over the file. Unknown keys are errors. Secrets are never settings; files are
named instead.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from grove_server.telemetry.build import version
from grove_server.telemetry.logs import LogFormat, LogLevel

PREFIX: Final = "GROVE_SCALER_"
SERVER_VARIABLE: Final = "GROVE_SERVER"
CONFIG_BYTES_MAX: Final = 1 << 20
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "mode_cap": ("apply", "recommend"),
    "log_format": ("json", "console"),
    "log_level": ("debug", "info", "warning", "error"),
}


class SettingsError(ValueError):
    """Settings that make no sense; one line per mistake."""


class Settings(BaseModel):
    """All settings. Durations are seconds (``_s``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: str = Field("127.0.0.1:50051", min_length=1, description="address of the Grove Server")
    server_ca: Path | None = Field(None, description="PEM authorities of the server's certificate")
    listen: str = Field("127.0.0.1:50052", min_length=1, description="address of AutoscalerService and KEDA's scaler")
    advertise: str = Field("", description="address that the server calls; default: where it listens")
    name: str = Field("", description="name to register; default: from the host and the port")
    metrics_listen: str = Field("127.0.0.1:9465", description='address of /metrics and /readyz; "" turns them off')

    prometheus: str = Field("", description="URL of Prometheus")
    scrape: bool = Field(default=False, description="read the pods' own pages; needs no Prometheus")
    prometheus_token_file: Path | None = Field(None, description="file with a bearer token")
    prometheus_username: str = Field("", description="user name, with prometheus_password_file")
    prometheus_password_file: Path | None = Field(None, description="file with the password")
    prometheus_ca: Path | None = Field(None, description="PEM authorities of Prometheus's certificate")
    prometheus_cert: Path | None = Field(None, description="PEM certificate shown to Prometheus")
    prometheus_key: Path | None = Field(None, description="PEM key of it")

    tick_s: float = Field(15.0, ge=0.2, le=300.0, description="seconds between two looks")
    window_s: float = Field(60.0, ge=1.0, le=600.0, description="window of rates; at least four scrapes of Prometheus")
    mode_cap: Literal["apply", "recommend"] = Field("apply", description="recommend: no policy changes anything")
    state_file: Path | None = Field(None, description="file that keeps windows and forecasts over a restart")
    decision_log: Path | None = Field(None, description="file of JSON lines with every decision that is news")

    tls_cert: Path | None = Field(None, description="PEM certificate shown to the server and to callers")
    tls_key: Path | None = Field(None, description="PEM key of it")
    tls_client_ca: Path | None = Field(None, description="PEM authorities of callers' certificates; demands one")
    insecure: bool = Field(default=False, description="allow plaintext away from loopback and unix sockets")
    log_format: LogFormat | None = Field(None, description="default: console on a terminal, else json")
    log_level: LogLevel = Field("info", description="least level that is written")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if not self.prometheus and not self.scrape:
            raise ValueError("prometheus or scrape: one of them says where signals come from")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key come together")
        return self

    def shown(self) -> dict[str, object]:
        """Return the settings as plain values for a log line."""
        return self.model_dump(mode="json", exclude_defaults=True)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting."""
    parser.add_argument("--config", metavar="FILE", help="YAML file with settings")
    for name, field in Settings.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        default = f" (default {field.default})" if field.default not in (None, "", False) else ""
        text = f"{field.description}{default}".replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            metavar = "|".join(_CHOICES[name]) if name in _CHOICES else name.rsplit("_", 1)[-1].upper()
            parser.add_argument(flag, metavar=metavar, help=text)


def load(given: argparse.Namespace, environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of parsed flags, *environment* (default: the process's) and the file they name.

    Raises SettingsError with every mistake.
    """
    environment = os.environ if environment is None else environment
    names = {*Settings.model_fields, "config"}
    flags = {key: value for key, value in vars(given).items() if value is not None and key in names}
    variables = _variables(environment, names)
    config = flags.pop("config", None) or variables.pop("config", None)
    merged: dict[str, Any] = {**(_file(Path(config)) if config else {}), **variables, **flags}
    if SERVER_VARIABLE in environment:
        merged.setdefault("server", environment[SERVER_VARIABLE])
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(item) for item in error.errors(include_url=False))) from error


def parser(parent: argparse.ArgumentParser | None = None) -> argparse.ArgumentParser:
    """Return the parser of `run`; *parent* is that of the subcommand."""
    made = parent or argparse.ArgumentParser(prog="grove-autoscaler run")
    made.add_argument("--version", action="version", version=f"grove-autoscaler {version()}")
    add_flags(made)
    return made


def _variables(environment: Mapping[str, str], names: set[str]) -> dict[str, Any]:
    found = {
        variable.removeprefix(PREFIX).lower(): value
        for variable, value in sorted(environment.items())
        if variable.startswith(PREFIX)
    }
    unknown = [f"variable {PREFIX}{key.upper()}: no such setting" for key in sorted(found) if key not in names]
    if unknown:
        raise SettingsError("\n".join(unknown))
    return dict(found)


def _file(path: Path) -> dict[str, Any]:
    import yaml  # noqa: PLC0415 -- 15 ms that only who has a file waits for

    try:
        if path.stat().st_size > CONFIG_BYTES_MAX:
            raise SettingsError(f"{path}: larger than {CONFIG_BYTES_MAX} bytes")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {type(error).__name__}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise SettingsError(f"{path}: must be a mapping of settings")
    return content


def _sentence(item: Mapping[str, Any]) -> str:
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    where = ".".join(str(part) for part in item["loc"]) or "settings"
    if item["type"] == "extra_forbidden":
        return f"{where}: no such setting"
    return f"{where}: {item['msg'][0].lower()}{item['msg'][1:]}, got {str(item['input'])[:100]!r}"
