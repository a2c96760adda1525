"""Probes and hooks of a container, as the manifest has them. Pure.

Source: core/v1 Probe and Lifecycle, with their defaults; a named port is looked up in the container's list.

Not here: what follows from a probe's answers (``probes``), asking (``probing``).
"""

from __future__ import annotations

from typing import Final

from grove_server.runtime.process.pod_plan import (
    Exec,
    GrpcHealth,
    HookAction,
    HttpGet,
    ProbeKind,
    ProbePlan,
    Sleep,
    TcpSocket,
)
from grove_server.runtime.process.refusals import Fields

PORT_MAX: Final = 65_535
_HEADERS_MAX: Final = 64
_SCHEMES: Final = ("HTTP", "HTTPS")
# What would end a header's line or a request's line early.
_LINE_BREAKS: Final = frozenset("\r\n")


def read_probe(container: Fields, kind: ProbeKind, *, pod_ip: str) -> ProbePlan | None:
    """Return a container's probe of one kind; None if it has none."""
    name = f"{kind}Probe"
    if name not in container:
        return None
    probe = container.fields(name)
    action = _probe_action(probe, container, pod_ip)
    if action is None:
        return None
    successes = probe.number("successThreshold", 1, least=1)
    if successes != 1 and kind is not ProbeKind.READINESS:
        probe.refusals.refuse_value(probe.at("successThreshold"), "1 for this probe", successes)
    grace_s = None
    if "terminationGracePeriodSeconds" in probe:
        if kind is ProbeKind.READINESS:
            probe.refusals.refuse(probe.at("terminationGracePeriodSeconds"), "may not be set for a readiness probe")
        grace_s = float(probe.number("terminationGracePeriodSeconds", 30, least=1))
    return ProbePlan(
        kind=kind,
        action=action,
        initial_delay_s=float(probe.number("initialDelaySeconds", 0, least=0)),
        # Zero means the default, as the API's defaulting has it.
        period_s=float(probe.number("periodSeconds", 0, least=0) or 10),
        timeout_s=float(probe.number("timeoutSeconds", 0, least=0) or 1),
        successes_needed=successes,
        failures_needed=probe.number("failureThreshold", 0, least=0) or 3,
        grace_s=grace_s,
    )


def read_hook(container: Fields, name: str, *, pod_ip: str) -> HookAction | None:
    """Return a container's hook (postStart or preStop); None if it has none."""
    lifecycle = container.fields("lifecycle")
    if name not in lifecycle:
        return None
    hook = lifecycle.fields(name)
    if "sleep" in hook:
        return Sleep(duration_s=float(hook.fields("sleep").number("seconds", 0, least=0)))
    action = _common_action(hook, container, pod_ip)
    if action is None:
        hook.refusals.refuse(hook.path, "must have one of exec, httpGet, sleep and tcpSocket")
    return action


def _probe_action(probe: Fields, container: Fields, pod_ip: str) -> HttpGet | TcpSocket | Exec | GrpcHealth | None:
    action = _common_action(probe, container, pod_ip)
    if action is not None:
        return action
    if "grpc" in probe:
        health = probe.fields("grpc")
        return GrpcHealth(
            host=pod_ip, port=health.number("port", 1, least=1, most=PORT_MAX), service=health.text("service")
        )
    probe.refusals.refuse(probe.path, "must have one of exec, grpc, httpGet and tcpSocket")
    return None


def _common_action(holder: Fields, container: Fields, pod_ip: str) -> HttpGet | TcpSocket | Exec | None:
    if "exec" in holder:
        command = holder.fields("exec")
        argv = command.texts("command")
        if not argv:
            command.refusals.refuse(command.at("command"), "must not be empty")
        return Exec(argv=argv)
    if "httpGet" in holder:
        return _http_get(holder.fields("httpGet"), container, pod_ip)
    if "tcpSocket" in holder:
        socket = holder.fields("tcpSocket")
        return TcpSocket(host=_host(socket, pod_ip), port=_port(socket, container))
    return None


def _http_get(request: Fields, container: Fields, pod_ip: str) -> HttpGet:
    scheme = request.text("scheme", "HTTP").upper()
    if scheme not in _SCHEMES:
        request.refusals.refuse_value(request.at("scheme"), "HTTP or HTTPS", scheme)
    path = request.text("path", "/") or "/"
    if not path.startswith("/"):
        path = f"/{path}"
    if any(character <= " " for character in path):
        request.refusals.refuse_value(request.at("path"), "without spaces and line breaks", path)
        path = "/"
    headers = request.objects("httpHeaders")
    if len(headers) > _HEADERS_MAX:
        request.refusals.refuse(request.at("httpHeaders"), f"must not be more than {_HEADERS_MAX}")
    pairs = []
    for header in headers[:_HEADERS_MAX]:
        name, value = header.text("name"), header.text("value")
        if not name or _LINE_BREAKS & set(name + value) or set(" :") & set(name) or not name.isascii():
            header.refusals.refuse_value(header.path, "a header of one line", name)
        else:
            pairs.append((name, value))
    return HttpGet(
        host=_host(request, pod_ip),
        port=_port(request, container),
        path=path,
        scheme=scheme,
        headers=tuple(pairs),
    )


def _host(holder: Fields, pod_ip: str) -> str:
    host = holder.text("host")
    if any(character <= " " for character in host):
        holder.refusals.refuse_value(holder.at("host"), "without spaces and line breaks", host)
        return pod_ip
    return host or pod_ip


def _port(holder: Fields, container: Fields) -> int:
    value = holder.raw("port")
    if isinstance(value, str):
        if value.isascii() and value.isdigit():
            value = int(value) if len(value) <= len(str(PORT_MAX)) else 0
        else:
            for port in container.objects("ports"):
                if port.raw("name") == value:
                    return port.number("containerPort", 1, least=1, most=PORT_MAX)
            holder.refusals.refuse_value(holder.at("port"), "the name of a port of the container", value)
            return 1
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= PORT_MAX:
        holder.refusals.refuse_value(holder.at("port"), f"a whole number from 1 to {PORT_MAX}", value)
        return 1
    return value
