"""Generate the Python code of proto/ into clients/python, or check that what is committed is fresh.

Run as `python scripts/generate.py` (writes) or `python scripts/generate.py --check` (generates into a
temporary folder, compares, changes nothing, exits 1 and names each file that differs).

The generated code is committed, so that editors, type checkers and a plain `pip install` need no
toolchain. Everything needed comes from pip: protoc is part of grpcio-tools, the type stubs come from
mypy-protobuf. Other languages have generators of their own beside their clients.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PROTO_ROOT = REPOSITORY / "proto"
OUTPUT_ROOT = REPOSITORY / "clients" / "python"
GENERATED = "grove/v1"
GENERATED_SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def generate(output_root: Path) -> None:
    """Write the modules and stubs of all protos below `output_root`; RuntimeError if protoc fails."""
    scripts = Path(sys.executable).parent
    protos = sorted(str(path.relative_to(PROTO_ROOT)) for path in PROTO_ROOT.rglob("*.proto"))
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--proto_path={PROTO_ROOT}",
        f"--python_out={output_root}",
        f"--grpc_python_out={output_root}",
        f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
        f"--mypy_out={output_root}",
        f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
        f"--mypy_grpc_out={output_root}",
        *protos,
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())


def generated_files(output_root: Path) -> dict[str, bytes]:
    """Return the content of each generated file below `output_root` by its relative path."""
    return {
        str(path.relative_to(output_root)): path.read_bytes()
        for path in sorted((output_root / GENERATED).glob("*"))
        if path.name.endswith(GENERATED_SUFFIXES)
    }


def stale_files(output_root: Path) -> list[str]:
    """Return the paths below `output_root` that differ from what the protos give, sorted."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        wanted = generated_files(Path(scratch))
    present = generated_files(output_root)
    return sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))


def main(arguments: list[str] | None = None) -> int:
    """Generate or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only, change nothing")
    options = parser.parse_args(arguments)
    if options.check:
        stale = stale_files(OUTPUT_ROOT)
        for name in stale:
            sys.stderr.write(f"not what proto/ gives: {name}; run `make generate`\n")
        return 1 if stale else 0
    for name in generated_files(OUTPUT_ROOT):
        (OUTPUT_ROOT / name).unlink()
    generate(OUTPUT_ROOT)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
