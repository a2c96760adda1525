"""Settings: flags, ``GROVE_*`` variables and a YAML file set the same things; one frozen object comes out.

Flags win over variables, variables over the file. Unknown keys are errors everywhere, and so are values out of their
bounds: a server that starts does what it was told. Every setting has one name: ``drain_s`` is ``--drain-s``,
``GROVE_DRAIN_S`` and ``drain_s:`` in the file.

Not here: what the settings do. Secrets are never settings; files are named instead.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from grove_server.telemetry.build import version
from grove_server.telemetry.logs import LogFormat, LogLevel

PREFIX: Final = "GROVE_"
# Variables that belong to others: the client, the autoscaler, and what pods of a set are told about themselves.
_FOREIGN: Final = (
    "GROVE_SERVER",
    "GROVE_PCS_",
    "GROVE_PCSG_",
    "GROVE_PCLQ_",
    "GROVE_HEADLESS_SERVICE",
    "GROVE_RUN",
)
CONFIG_BYTES_MAX: Final = 1 << 20

Role = Literal["none", "read", "write", "admin"]
AccessLogMode = Literal["default", "all", "off"]


class SettingsError(ValueError):
    """Settings that make no sense; the text is for the person who gave them, one line per mistake."""


def _default_data_dir() -> Path:
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "grove"


class Settings(BaseModel):
    """All settings of a server. Durations are seconds (``_s``), sizes bytes (``_bytes``), counts whole numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, validate_default=True)

    listen: str = Field("127.0.0.1:50051", min_length=1, description="address of gRPC: HOST:PORT or unix:PATH")
    metrics_listen: str = Field(
        "127.0.0.1:9464", description='address of /metrics, /healthz and /readyz; "" turns them off'
    )
    data_dir: Path = Field(default_factory=_default_data_dir, description="where the store lives")
    store: Literal["sqlite"] = Field("sqlite", description="what keeps the state")
    runtime: Literal["fake", "process"] = Field(
        "fake", description="what runs the pods: fake simulates them, process starts them on this machine"
    )
    cluster: Path | None = Field(
        None, description="YAML file with the nodes of the fake runtime, topologies, queues and priority classes"
    )
    pods_on_exit: Literal["keep", "stop"] = Field(
        "keep", description="process runtime: whether pods go on when the server stops"
    )
    pods_exit_grace_s: float = Field(
        10.0, ge=0, le=3600, description="process runtime: longest time that pods have to end with the server"
    )
    node_name: str = Field(
        "", max_length=253, description="process runtime: name of the node; default: that of the machine"
    )
    node_pods_max: int = Field(110, ge=1, le=4_000, description="process runtime: pods on this machine")
    reserve: str = Field(
        "", max_length=1_000, description="process runtime: what pods do not get, such as cpu=1,memory=2Gi"
    )
    container_log_bytes: int = Field(
        10 << 20, ge=4_096, le=1 << 40, description="process runtime: size at which a container's log is rotated"
    )
    container_log_files: int = Field(5, ge=1, le=1_000, description="process runtime: log files of one container")
    container_processes_max: int = Field(
        4_096, ge=1, le=4_000_000, description="process runtime: processes and threads of one container"
    )
    container_files_max: int | None = Field(
        None,
        ge=64,
        le=1 << 30,
        description="process runtime: files that a process of a container may have open; default: as the server itself",
    )

    log_format: LogFormat | None = Field(None, description="default: console on a terminal, else json")
    log_level: LogLevel = Field("info", description="least level that is written")
    access_log: AccessLogMode = Field(
        "default", description="default: failures, changes and slow calls; all: each call; off: failures only"
    )
    access_log_slow_s: float = Field(0.1, ge=0, le=3600, description="calls this long are written")

    tls_cert: Path | None = Field(None, description="PEM certificate chain of the server; read again when it changes")
    tls_key: Path | None = Field(None, description="PEM key of the server")
    tls_client_ca: Path | None = Field(None, description="PEM authorities of client certificates; demands one")
    autoscaler_ca: Path | None = Field(
        None, description="PEM authorities of autoscalers on other machines; default: those of clients"
    )
    insecure: bool = Field(default=False, description="allow plaintext away from loopback and unix sockets")
    client_role_default: Role = Field("read", description="role of a client certificate that client_roles lacks")
    client_roles: dict[str, Role] = Field(
        default_factory=dict,
        max_length=10_000,
        description="NAME=ROLE of client certificates (URI name, DNS name or common name); may be given repeatedly",
    )
    anonymous_role: Role | None = Field(
        None, description="role of clients without certificate away from loopback; default: read, admin with insecure"
    )

    reads_max: int = Field(4_000, ge=1, le=100_000, description="reading calls at the same time")
    writes_max: int = Field(2_000, ge=1, le=100_000, description="changing calls at the same time")
    watches_max: int = Field(10_000, ge=1, le=100_000, description="watches at the same time")
    pods_per_set_max: int = Field(20_000, ge=1, le=1_000_000, description="pods in one set, all copies together")
    response_cache_bytes: int = Field(64 << 20, ge=0, le=1 << 34, description="memory for serialized resources")
    replica_metrics: bool = Field(default=True, description="metrics with the names of sets, cliques and groups")
    allow_exec: Literal["auto", "on", "off"] = Field(
        "auto", description="whether commands may be run beside containers; auto: on loopback and unix sockets"
    )
    reflection: bool = Field(default=True, description="gRPC server reflection")
    node_eviction_delay_s: float = Field(
        300.0, ge=0, le=86_400, description="pods leave a node that was not ready for so long"
    )
    stuck_terminating_s: float = Field(
        60.0,
        ge=0,
        le=86_400,
        description="stopping pods on a node that is not ready are removed so long after their grace",
    )
    pod_drain_timeout_s: float = Field(
        30.0, ge=0, le=86_400, description="longest time a pod waits for routers to leave it before it is stopped"
    )
    update_settle_s: float = Field(
        1.0, ge=0, le=3_600, description="time without an edit of its template before a set's update begins"
    )
    solver: Literal["off", "auto"] = Field(
        "auto", description="exact solver for gangs that the search gives up on; auto: if its extra is installed"
    )
    packing: Literal["tightest", "least-stranded"] = Field(
        "least-stranded",
        description="where few pods go: least room left, or least GPU stranded for the pods that usually come",
    )
    consolidation: Literal["off", "on"] = Field(
        "off", description="moves surplus pods for gangs whose room is in pieces"
    )
    consolidation_moves_per_hour: int = Field(60, ge=1, le=100_000, description="pods that consolidation may move")
    drain_s: float = Field(4.0, ge=0, le=300, description="time for running calls after SIGTERM")

    def shown(self) -> dict[str, object]:
        """Return the settings as plain values for a log line; the clients' names are counted, not shown."""
        values: dict[str, object] = self.model_dump(mode="json")
        values["client_roles"] = f"{len(self.client_roles)} clients"
        return values


def load(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None, *, program: str = "grove-server"
) -> Settings:
    """Return the settings given by *arguments*, *environment* (default: the process's) and the file they name.

    Raises SettingsError with every mistake; exits as argparse does for --help, --version and broken flags.
    """
    environment = os.environ if environment is None else environment
    flags = {key: value for key, value in vars(_parser(program).parse_args(arguments)).items() if value is not None}
    variables = _variables(environment)
    config = flags.pop("config", None) or variables.pop("config", None)
    merged: dict[str, Any] = {**(_file(Path(config)) if config else {}), **variables, **flags}
    if isinstance(merged.get("client_roles"), str | list):
        merged["client_roles"] = _pairs(merged["client_roles"])
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(item) for item in error.errors(include_url=False))) from error


def _parser(program: str) -> argparse.ArgumentParser:

    parser = argparse.ArgumentParser(
        prog=program,
        description="Grove Server: places, starts and scales inference systems as one unit.",
        epilog="Each flag is also a variable (GROVE_DRAIN_S) and a key of the YAML file (drain_s).",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{program} {version()}")
    parser.add_argument("--config", metavar="FILE", help="YAML file with settings")
    for name, field in Settings.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        choices = _choices(field.annotation)
        has_none = field.default in (None, "") or field.default_factory is not None
        default = "" if has_none else f" (default {field.default})"
        text = f"{field.description}{default}".replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        elif name == "client_roles":
            parser.add_argument("--client-role", dest=name, action="append", metavar="NAME=ROLE", help=text)
        else:
            metavar = "|".join(choices) if choices else name.rsplit("_", 1)[-1].upper()
            parser.add_argument(flag, metavar=metavar, help=text)
    return parser


def _choices(annotation: Any) -> tuple[str, ...]:  # noqa: ANN401 -- an annotation may be anything
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Literal:
        return tuple(str(value) for value in get_args(annotation))
    for part in get_args(annotation):
        if get_origin(part) is Literal:
            return tuple(str(value) for value in get_args(part))
    return ()


def _variables(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    unknown = []
    for name in sorted(environment):
        if not name.startswith(PREFIX) or name.startswith(_FOREIGN):
            continue
        key = name.removeprefix(PREFIX).lower()
        if key in Settings.model_fields or key == "config":
            values[key] = environment[name]
        else:
            unknown.append(f"variable {name}: no such setting")
    if unknown:
        raise SettingsError("\n".join(unknown))
    return values


class _StrictLoader(yaml.SafeLoader):
    """Reads YAML and refuses a key that is given twice, of which PyYAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 -- PyYAML's signature
        """Return the mapping of *node*."""
        seen: set[object] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            text = stream.read(CONFIG_BYTES_MAX + 1)
        if len(text) > CONFIG_BYTES_MAX:
            raise SettingsError(f"{path}: larger than {CONFIG_BYTES_MAX} bytes")
        content = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 -- it is a safe loader
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise SettingsError(f"{path}: must be a mapping of settings")
    return content


def _pairs(given: str | list[str]) -> dict[str, str]:
    entries = given.split(",") if isinstance(given, str) else given
    pairs = {}
    for entry in entries:
        name, separator, role = entry.rpartition("=")
        if not separator or not name:
            raise SettingsError(f"client_roles: {entry!r} is not NAME=ROLE")
        pairs[name] = role
    return pairs


def _sentence(item: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "settings"
    if item["type"] == "extra_forbidden":
        return f"{where}: no such setting"
    return f"{where}: {item['msg'][0].lower()}{item['msg'][1:]}, got {str(item['input'])[:100]!r}"
