"""`python -m examples.engine`: one engine as a process. On SIGTERM it finishes what it has and ends; twice, at once."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Final

from examples import wire
from examples.engine.batch import Figures
from examples.engine.engine import Engine
from examples.engine.meters import Meters
from examples.engine.serving import Serving

_POLL_S: Final = 0.05
_HAND_OVER_S: Final = 2.0
_POD_LABELS: Final = {"namespace": "POD_NAMESPACE", "pod": "POD_NAME"}


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """Return what the command line says; each of the figures has a flag of its name."""
    parser = argparse.ArgumentParser(prog="example-engine", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--model", default="simulated")
    parser.add_argument("--drain-timeout-s", type=float, default=30.0)
    for field in dataclasses.fields(Figures):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, type=type(field.default), default=field.default, help="default %(default)s")
    return parser.parse_args(given)


async def serve(options: argparse.Namespace) -> int:
    """Serve until a signal; return how many requests were cut off."""
    figures = Figures(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Figures)})
    pod = {label: os.environ[variable] for label, variable in _POD_LABELS.items() if variable in os.environ}
    engine = Engine(figures, Meters(options.model, pod))
    serving = Serving(engine, options.model, options.host)
    server = wire.HttpServer(serving.handle)
    stop, at_once = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (at_once if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, on_signal)
    turning = asyncio.create_task(engine.run())
    serving.port = await server.listen(options.host, options.port)
    print(f"engine ready: http://{options.host}:{serving.port}", flush=True)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((turning, stopping), return_when=asyncio.FIRST_COMPLETED)
    engine.is_draining = True

    async def wait(is_over: Callable[[], bool], longest_s: float) -> None:
        give_up_at_s = loop.time() + longest_s
        while not (is_over() or turning.done() or at_once.is_set()) and loop.time() < give_up_at_s:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(at_once.wait(), _POLL_S)

    await wait(lambda: engine.is_idle, options.drain_timeout_s)
    # Others may be about to fetch KV from here; if nobody came soon, it is of a request that was given up.
    await wait(lambda: engine.is_empty, _HAND_OVER_S)
    cut_off = await server.close(0.0 if at_once.is_set() else 1.0)
    stopping.cancel()
    turning.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await turning
    return cut_off


def main() -> None:
    """Run the program."""
    cut_off = asyncio.run(serve(arguments(sys.argv[1:])))
    if cut_off:
        sys.exit(f"engine: {cut_off} requests were cut off")


if __name__ == "__main__":
    main()
