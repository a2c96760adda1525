"""One request through the system: prefill computes the prompt, decode fetches its KV and writes the answer.

Until the first byte of an answer went to the client, an engine that is gone, refuses or hangs up costs nothing but
another try elsewhere, ``TRIES`` in all. A prefill engine has the request until decode has the KV. Where there are no
prefill and decode engines, ``aggregated`` ones do both.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable
from typing import Any, Final

from examples import wire
from examples.router.fleet import Fleet, NobodyError, Place, Turn

TRIES: Final = 4
AGGREGATED: Final = "aggregated"
PREFILL: Final = "prefill"
DECODE: Final = "decode"
_SERVER_ERRORS: Final = 500
_LOG: Final = logging.getLogger(__name__)


class EngineError(Exception):
    """An engine could not be had; another may."""


class RefusedError(Exception):
    """An engine says that the request is wrong; no other would say otherwise."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"refused with {status}")
        self.status = status
        self.body = body


class HungUpError(Exception):
    """The client is gone."""


class Proxy:
    """Sends completions to the fleet."""

    def __init__(self, fleet: Fleet, port: int) -> None:
        """*port* is that of all engines."""
        self._fleet = fleet
        self._port = port
        self.is_ready = False
        self.is_draining = False
        self.counts = {"answered": 0, "refused": 0, "hung_up": 0, "failed": 0}

    async def handle(self, request: wire.Request, reply: wire.Reply) -> None:
        """Answer one request of a client."""
        match request.method, request.path:
            case "GET", "/health" if self.is_ready and not self.is_draining:
                await reply.whole(wire.OK, json.dumps(self.counts).encode())
            case "GET", "/health":
                await reply.refuse(503, "the router does not serve yet, or no more")
            case "POST", "/v1/completions":
                await self._complete(request.body, reply)
            case _:
                await reply.refuse(404, "there is nothing here")

    async def _complete(self, body: bytes, reply: wire.Reply) -> None:
        try:
            asked = json.loads(body)
        except ValueError:
            asked = None
        if not isinstance(asked, dict) or "kv_transfer_params" in asked:
            self.counts["refused"] += 1
            await reply.refuse(400, "the body is no completion request")
            return
        avoid = {PREFILL: "", DECODE: ""}
        message = ""
        for _ in range(TRIES):
            try:
                await self._try(asked, reply, avoid)
            except EngineError as error:
                message = str(error)
                _LOG.info("another try: %s", message)
            except RefusedError as error:
                self.counts["refused"] += 1
                await reply.whole(error.status, error.body)
                return
            except NobodyError as error:
                message = str(error)
                break
            except HungUpError:
                self.counts["hung_up"] += 1
                return
            except asyncio.CancelledError:
                # Noticed while an engine was at work: leaving it aborts the request there.
                self.counts["hung_up"] += 1
                raise
            else:
                self.counts["answered"] += 1
                return
            if reply.is_started:
                # What the client has cannot be taken back: the answer stays without its end, which it can see.
                break
        self.counts["failed"] += 1
        _LOG.warning("a request failed: %s", message)
        if not reply.is_started:
            await reply.refuse(503, message)

    async def _try(self, asked: dict[str, Any], reply: wire.Reply, avoid: dict[str, str]) -> None:
        """Answer, or raise EngineError after noting whom to avoid next time."""
        if self._fleet.open(AGGREGATED):
            async with self._fleet.taken(AGGREGATED) as turn:
                await self._answer(turn.place, asked, reply, None)
            return
        async with self._fleet.taken(PREFILL, avoid=avoid[PREFILL]) as prefill:
            # Whatever fails from here on, the next try begins elsewhere if it can.
            avoid[PREFILL] = prefill.place.uid
            transfer = await self._prefill(prefill.place, asked)
            async with self._fleet.taken(DECODE, avoid=avoid[DECODE]) as decode:
                avoid[DECODE] = decode.place.uid
                await self._answer(decode.place, {**asked, "kv_transfer_params": transfer}, reply, prefill)

    async def _prefill(self, place: Place, asked: dict[str, Any]) -> dict[str, Any]:
        wanted = {**asked, "max_tokens": 1, "stream": False, "kv_transfer_params": {"do_remote_decode": True}}
        try:
            async with wire.asked(
                place.address, self._port, "POST", "/v1/completions", json.dumps(wanted).encode()
            ) as answer:
                body = await answer.whole()
        except (OSError, TimeoutError, wire.WireError) as error:
            raise EngineError(f"{place.pod}: {error}") from None
        _check(place, answer.status, body)
        transfer: dict[str, Any] = json.loads(body)["kv_transfer_params"]
        return transfer

    async def _answer(self, place: Place, asked: dict[str, Any], reply: wire.Reply, done: Turn | None) -> None:
        """Pass an answer on; *done* is of the engine that has nothing more to do once the head is there."""
        try:
            async with wire.asked(
                place.address, self._port, "POST", "/v1/completions", json.dumps(asked).encode()
            ) as answer:
                if answer.status != wire.OK:
                    _check(place, answer.status, await answer.whole())
                if done is not None:
                    done.end()
                first = True
                async for piece in answer.pieces():
                    if first:
                        await _told(reply.start(wire.OK, answer.headers.get("content-type", wire.JSON)))
                        first = False
                    await _told(reply.send(piece))
        except (OSError, TimeoutError, wire.WireError) as error:
            raise EngineError(f"{place.pod}: {error}") from None
        await _told(reply.finish())


def _check(place: Place, status: int, body: bytes) -> None:
    """Raise what an engine's status means, unless all is well."""
    if status >= _SERVER_ERRORS:
        raise EngineError(f"{place.pod} answered {status}")
    if status != wire.OK:
        raise RefusedError(status, body)


async def _told(sending: Awaitable[None]) -> None:
    """Send to the client, whose failure is not the engine's."""
    try:
        await sending
    except ConnectionError:
        raise HungUpError from None
