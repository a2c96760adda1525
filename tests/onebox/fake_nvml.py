"""GPUs that are not there: builds the library of nvml.c and writes the file it answers from."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("nvml.c")
MODEL: Final = "NVIDIA H100 80GB HBM3"
MEMORY_BYTES: Final = 80 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeGpu:
    """One line of the file; see nvml.c."""

    uuid: str
    link: str = "-"
    numa: int = 0
    state: str = "ok"

    def __str__(self) -> str:
        return f"{self.uuid} {MODEL.replace(' ', '_')} {MEMORY_BYTES} {self.link} {self.numa} {self.state}"


class FakeNvml:
    """The library in a folder, with its GPUs. `environment` makes a process use it."""

    def __init__(self, folder: Path, gpus: tuple[FakeGpu, ...]) -> None:
        self.library = folder / "libnvidia-ml.so.1"
        self._state = folder / "gpus"
        self.gpus = gpus
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", self.library, SOURCE], check=True)  # noqa: S607 -- the machine's compiler
        self._write()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find the library and its GPUs."""
        return {"LD_LIBRARY_PATH": str(self.library.parent), "FAKE_NVML": str(self._state)}

    def set_state(self, uuid: str, state: str) -> None:
        """Let a GPU be as *state* says from now on."""
        self.gpus = tuple(replace(gpu, state=state) if gpu.uuid == uuid else gpu for gpu in self.gpus)
        self._write()

    def remove(self, uuid: str) -> None:
        """Let a GPU disappear."""
        self.gpus = tuple(gpu for gpu in self.gpus if gpu.uuid != uuid)
        self._write()

    def _write(self) -> None:
        new = self._state.with_suffix(".new")
        new.write_text("".join(f"{gpu}\n" for gpu in self.gpus), encoding="ascii")
        new.replace(self._state)


def eight_gpus() -> tuple[FakeGpu, ...]:
    """Return eight GPUs, in two islands of four."""
    return tuple(FakeGpu(uuid=f"GPU-{number}", link=f"switch{number // 4}", numa=number // 4) for number in range(8))
