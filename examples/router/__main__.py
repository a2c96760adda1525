"""`python -m examples.router`: the router as a process. On SIGTERM it finishes what it has, says goodbye and ends."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence

from examples import wire
from examples.router.fleet import Fleet
from examples.router.following import Follower, Served
from examples.router.proxy import Proxy
from grove_client import DEFAULT_TARGET
from grove_client.channel import open_channel


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """Return what the command line says; in a pod the defaults are right."""
    own = os.environ.get
    parser = argparse.ArgumentParser(prog="example-router", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--engine-port", type=int, default=8000)
    parser.add_argument("--server", default=own("GROVE_SERVER", DEFAULT_TARGET), help="default %(default)s")
    parser.add_argument("--namespace", default=own("POD_NAMESPACE", "default"))
    parser.add_argument("--set", default=own("GROVE_PCS_NAME"), help="the set whose engines are used")
    parser.add_argument("--copy", default=own("GROVE_PCS_INDEX", "0"))
    parser.add_argument("--name", default=own("POD_NAME", f"router-{os.getpid()}"), help="different for each process")
    parser.add_argument("--drain-timeout-s", type=float, default=30.0)
    options = parser.parse_args(given)
    if options.set is None:
        parser.error("--set or GROVE_PCS_NAME is needed")
    return options


async def serve(options: argparse.Namespace) -> int:
    """Serve until a signal; return how many requests were cut off."""
    served = Served(namespace=options.namespace, set_name=options.set, copy=options.copy, router=options.name)
    fleet = Fleet()
    proxy = Proxy(fleet, options.engine_port)
    server = wire.HttpServer(proxy.handle)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    async with open_channel(options.server, None, insecure=False) as channel:
        follower = Follower(channel, served, fleet)
        following = asyncio.create_task(follower.run())
        stopping = asyncio.create_task(stop.wait())
        port = await server.listen(options.host, options.port)
        print(f"router ready: http://{options.host}:{port}", flush=True)
        knowing = asyncio.create_task(_known(follower, proxy))
        await asyncio.wait((following, stopping), return_when=asyncio.FIRST_COMPLETED)
        proxy.is_draining = True
        cut_off = await server.close(options.drain_timeout_s)
        await follower.end()
        for task in (knowing, stopping, following):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
    return cut_off


async def _known(follower: Follower, proxy: Proxy) -> None:
    """Let the router be ready once it knows pods and drains."""
    await follower.knows_pods.wait()
    await follower.knows_drains.wait()
    proxy.is_ready = True


def main() -> None:
    """Run the program."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    cut_off = asyncio.run(serve(arguments(sys.argv[1:])))
    if cut_off:
        sys.exit(f"router: {cut_off} requests were cut off")


if __name__ == "__main__":
    main()
