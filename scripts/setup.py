"""Make or refresh `.venv`: the one environment of the repository, with both distributions installed in place.

Needs Python 3.11 or later with its venv module, and pip's index, nothing else. Rules: every package comes by exact
version and hash (requirements/dev.txt), as a wheel; the same inputs mean the same environment, so a stamp of them
lets a second run return at once; two runs at a time wait for each other. An existing environment is kept and
brought up to date, unless its interpreter is gone or too old.
"""

import argparse
import fcntl
import hashlib
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Final

PYTHON_MIN: Final = (3, 11)
ROOT: Final = Path(__file__).resolve().parent.parent
VENV: Final = ROOT / ".venv"
PYTHON: Final = VENV / "bin" / "python"
STAMP: Final = VENV / "setup-stamp"
LOCK: Final = ROOT / "build" / "setup.lock"
# Both distributions are installed in place, the client first because the server names it as a dependency.
DISTRIBUTIONS: Final = (ROOT / "clients" / "python", ROOT)


class SetupError(Exception):
    """The environment cannot be made; the message says what the reader can do."""


def stamp() -> str:
    """Return a digest of all that determines the environment: requirements, project files, and where it stands."""
    digest = hashlib.sha256(f"{VENV}\n".encode())
    for path in (Path(__file__), ROOT / "requirements" / "dev.txt", *(d / "pyproject.toml" for d in DISTRIBUTIONS)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_fresh(wanted: str) -> bool:
    """Tell whether the environment was finished with these inputs and its interpreter is still there."""
    if not (PYTHON.exists() and STAMP.exists()):
        return False
    return STAMP.read_text(encoding="ascii").strip() == wanted


def has_usable_interpreter() -> bool:
    """Tell whether the existing environment has a Python that starts and is new enough."""
    if not PYTHON.exists():
        return False
    command = [str(PYTHON), "-c", f"import pip, sys; sys.exit(sys.version_info < {PYTHON_MIN!r})"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def make_environment() -> None:
    """Create `.venv` with pip, anew if what is there cannot be used."""
    if has_usable_interpreter():
        return
    if VENV.exists():
        shutil.rmtree(VENV)
    try:
        venv.create(VENV, with_pip=True, symlinks=True)
    except subprocess.CalledProcessError as error:
        shutil.rmtree(VENV, ignore_errors=True)
        message = (
            f"{sys.executable} cannot make a virtual environment with pip. "
            "On Debian and Ubuntu: apt install python3-venv"
        )
        raise SetupError(message) from error


def pip(*arguments: str) -> None:
    """Run pip inside the environment; its own words go to the terminal."""
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet", *arguments]
    if subprocess.run(command, check=False, cwd=ROOT).returncode != 0:
        message = "pip could not install the packages; its message stands above"
        raise SetupError(message)


def install() -> None:
    """Install the pinned packages, then the two distributions, in place and without looking for anything else."""
    pip("--require-hashes", "--only-binary=:all:", "-r", str(ROOT / "requirements" / "dev.txt"))
    editable = [argument for folder in DISTRIBUTIONS for argument in ("-e", str(folder))]
    pip("--no-deps", "--no-build-isolation", *editable)


def main() -> int:
    """Bring the environment up to date and say what was done."""
    parser = argparse.ArgumentParser(description="Make or refresh .venv, the environment of this repository.")
    parser.parse_args()
    wanted = stamp()
    if is_fresh(wanted):
        return 0
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Another run may have done the work while this one waited.
        if is_fresh(wanted):
            return 0
        started_s = time.monotonic()
        print(f"setting up .venv with Python {sys.version.split()[0]} …", flush=True)
        try:
            make_environment()
            STAMP.unlink(missing_ok=True)
            install()
        except SetupError as error:
            print(f"setup: {error}", file=sys.stderr)
            return 1
        STAMP.write_text(wanted + "\n", encoding="ascii")
        print(f"set up in {time.monotonic() - started_s:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
