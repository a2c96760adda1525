"""NVIDIA's management library (``libnvidia-ml.so.1``), called through ctypes: what is there, how it is, who uses it.

Only what the node agent needs is bound. Names, numbers and layouts are those of NVIDIA's ``nvml.h`` (NVML API
Reference, version 12); structures that later versions made longer are asked for by the name of the version bound here.

Rules: a GPU is known by its UUID, since an index moves when another GPU disappears. Every call may block for seconds
when a driver hangs, so callers use a thread of their own. A library that is missing is no error but a machine without
GPUs; what a driver does not support is left out.

Not here: which id a GPU has for pods, and what its trouble means (``gpus``).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

LIBRARY: Final = "libnvidia-ml.so.1"

_SUCCESS: Final = 0
_NOT_SUPPORTED: Final = 3
_NOT_FOUND: Final = 6
_INSUFFICIENT_SIZE: Final = 7
_DRIVER_NOT_LOADED: Final = 9
_TIMEOUT: Final = 10
_FUNCTION_NOT_FOUND: Final = 13
_GPU_IS_LOST: Final = 15
# What a machine without a usable driver answers to nvmlInit: there is no GPU, and nothing is wrong.
_NO_DRIVER: Final = frozenset({_DRIVER_NOT_LOADED, 12})

_TEXT_BYTES: Final = 96
_EVENT_XID_CRITICAL: Final = 8
_P2P_NVLINK: Final = 2
_P2P_OK: Final = 0
# nvmlGpuTopologyLevel_t: everything up to here lies in one NUMA node.
_LEVEL_NODE: Final = 40
_MIG_ENABLED: Final = 1
# Bounds of one look: no machine has so many, and a library that says so is not believed.
GPUS_MAX: Final = 1_024
_EVENTS_PER_LOOK_MAX: Final = 256
_PROCESSES_MAX: Final = 4_096

_Handle = ctypes.c_void_p


class NvmlError(RuntimeError):
    """A call of the library failed; ``code`` is its nvmlReturn_t, ``is_gone`` whether the GPU is no longer there."""

    def __init__(self, call: str, code: int, text: str) -> None:
        """Say which call failed, and how the library words it."""
        super().__init__(f"{call}: {text} ({code})")
        self.code = code

    @property
    def is_gone(self) -> bool:
        """Whether the GPU fell off the bus or is not known any more."""
        return self.code in {_GPU_IS_LOST, _NOT_FOUND}


class NvmlAbsentError(RuntimeError):
    """There is no library or no driver, and so no GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU as the library describes it; ``memory_bytes`` is all that it has."""

    uuid: str
    model: str
    memory_bytes: int
    is_partitioned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUse:
    """How a GPU is used now: busy percent of the last sampling period, bytes taken, and bytes by process id.

    Bytes of a process are 0 where the driver does not tell.
    """

    busy_percent: int
    memory_used_bytes: int
    memory_by_pid: tuple[tuple[int, int], ...]


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Event(ctypes.Structure):
    _fields_ = (
        ("device", _Handle),
        ("type", ctypes.c_ulonglong),
        ("data", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class _Process(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used_memory", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class Nvml:
    """The library, opened; ``close`` gives it back. To be used by one thread at a time."""

    def __init__(self, library: str = LIBRARY) -> None:
        """Open the library and its driver. Raises NvmlAbsentError without them, NvmlError if they fail."""
        try:
            self._library = ctypes.CDLL(library)
            self._error_text = self._library.nvmlErrorString
        except (OSError, AttributeError) as error:
            raise NvmlAbsentError(str(error)) from error
        self._error_text.restype = ctypes.c_char_p
        code = self._invoke("nvmlInit_v2")
        if code in _NO_DRIVER:
            raise NvmlAbsentError(self._text(code))
        if code != _SUCCESS:
            raise NvmlError("nvmlInit_v2", code, self._text(code))
        self._handles: dict[str, _Handle] = {}
        self._events: _Handle | None = None

    def close(self) -> None:
        """Give the library back."""
        if self._events is not None:
            self._invoke("nvmlEventSetFree", self._events)
            self._events = None
        self._invoke("nvmlShutdown")

    def devices(self) -> tuple[Device, ...]:
        """Return the GPUs there are, in the order of the bus; those that fail to describe themselves are left out."""
        count = ctypes.c_uint()
        self._call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        found = []
        for index in range(min(count.value, GPUS_MAX)):
            handle = _Handle()
            try:
                self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
                device = self._described(handle)
            except NvmlError:
                # It shows as missing among those that are known; one that was never seen cannot be offered.
                continue
            self._handles[device.uuid] = handle
            found.append(device)
        return tuple(found)

    def check(self, uuid: str) -> None:
        """Ask a GPU for something that only a working one answers. Raises NvmlError if it does not."""
        memory = _Memory()
        self._call("nvmlDeviceGetMemoryInfo", self._handle(uuid), ctypes.byref(memory))

    def is_linked(self, uuid: str, other: str) -> bool:
        """Return whether two GPUs reach each other over NVLink, directly or through switches."""
        status = ctypes.c_int()
        code = self._invoke(
            "nvmlDeviceGetP2PStatus",
            self._handle(uuid),
            self._handle(other),
            ctypes.c_int(_P2P_NVLINK),
            ctypes.byref(status),
        )
        return code == _SUCCESS and status.value == _P2P_OK

    def shares_numa_node(self, uuid: str, other: str) -> bool:
        """Return whether two GPUs hang on one NUMA node; False also where the driver does not tell."""
        level = ctypes.c_int()
        code = self._invoke(
            "nvmlDeviceGetTopologyCommonAncestor", self._handle(uuid), self._handle(other), ctypes.byref(level)
        )
        return code == _SUCCESS and level.value <= _LEVEL_NODE

    def watch_errors(self) -> None:
        """Begin to collect critical errors of all GPUs found so far; those that cannot tell are left out."""
        events = _Handle()
        if self._invoke("nvmlEventSetCreate", ctypes.byref(events)) != _SUCCESS:
            return
        self._events = events
        for handle in self._handles.values():
            self._invoke("nvmlDeviceRegisterEvents", handle, ctypes.c_ulonglong(_EVENT_XID_CRITICAL), events)

    def errors(self) -> tuple[tuple[str, int], ...]:
        """Return the critical errors since the last call, as (UUID, XID); a UUID is empty if it cannot be told."""
        return tuple(self._errors())

    def use(self, uuid: str) -> DeviceUse:
        """Return how a GPU is used now. Raises NvmlError if it does not answer."""
        handle = self._handle(uuid)
        memory, busy = _Memory(), _Utilization()
        self._call("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory))
        code = self._invoke("nvmlDeviceGetUtilizationRates", handle, ctypes.byref(busy))
        return DeviceUse(
            busy_percent=busy.gpu if code == _SUCCESS else 0,
            memory_used_bytes=memory.used,
            memory_by_pid=self._processes(handle),
        )

    def _errors(self) -> Iterator[tuple[str, int]]:
        if self._events is None:
            return
        for _ in range(_EVENTS_PER_LOOK_MAX):
            event = _Event()
            if self._invoke("nvmlEventSetWait_v2", self._events, ctypes.byref(event), ctypes.c_uint(0)) != _SUCCESS:
                return
            if event.type == _EVENT_XID_CRITICAL:
                yield self._uuid(_Handle(event.device)), int(event.data)

    def _processes(self, handle: _Handle) -> tuple[tuple[int, int], ...]:
        count = ctypes.c_uint(_PROCESSES_MAX)
        entries = (_Process * _PROCESSES_MAX)()
        code = self._invoke("nvmlDeviceGetComputeRunningProcesses_v3", handle, ctypes.byref(count), entries)
        if code != _SUCCESS:
            return ()
        unknown = 2**64 - 1
        return tuple(
            (entry.pid, 0 if entry.used_memory == unknown else int(entry.used_memory))
            for entry in entries[: min(count.value, _PROCESSES_MAX)]
        )

    def _described(self, handle: _Handle) -> Device:
        memory = _Memory()
        self._call("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory))
        name = ctypes.create_string_buffer(_TEXT_BYTES)
        self._call("nvmlDeviceGetName", handle, name, ctypes.c_uint(_TEXT_BYTES))
        uuid = self._uuid(handle)
        if not uuid:
            raise NvmlError("nvmlDeviceGetUUID", _NOT_SUPPORTED, "the GPU does not say who it is")
        current, pending = ctypes.c_uint(), ctypes.c_uint()
        code = self._invoke("nvmlDeviceGetMigMode", handle, ctypes.byref(current), ctypes.byref(pending))
        return Device(
            uuid=uuid,
            model=name.value.decode("utf-8", "replace"),
            memory_bytes=memory.total,
            is_partitioned=code == _SUCCESS and current.value == _MIG_ENABLED,
        )

    def _uuid(self, handle: _Handle) -> str:
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        code = self._invoke("nvmlDeviceGetUUID", handle, text, ctypes.c_uint(_TEXT_BYTES))
        return text.value.decode("ascii", "replace") if code == _SUCCESS else ""

    def _handle(self, uuid: str) -> _Handle:
        handle = self._handles.get(uuid)
        if handle is None:
            handle = _Handle()
            self._call("nvmlDeviceGetHandleByUUID", uuid.encode("ascii"), ctypes.byref(handle))
            self._handles[uuid] = handle
        return handle

    def _call(self, name: str, *arguments: object) -> None:
        code = self._invoke(name, *arguments)
        if code != _SUCCESS:
            raise NvmlError(name, code, self._text(code))

    def _invoke(self, name: str, *arguments: object) -> int:
        function = getattr(self._library, name, None)
        if function is None:
            # An older driver than the one this was written for.
            return _FUNCTION_NOT_FOUND
        return int(function(*arguments))

    def _text(self, code: int) -> str:
        text = self._error_text(ctypes.c_int(code))
        return text.decode("utf-8", "replace") if isinstance(text, bytes) else "unknown error"
