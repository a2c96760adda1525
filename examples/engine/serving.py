"""What the engine serves: OpenAI's ``/v1/completions``, ``/kv/NAME`` for other engines, ``/health``, ``/metrics``.

A request may carry vLLM's ``kv_transfer_params``: with ``do_remote_decode`` the KV of its prompt is kept and the answer
says where; with ``remote_host``, ``remote_port`` and ``remote_request_id`` it is fetched from there. The head of an
answer goes out when the KV is here, so a router knows from then on that the other engine is not needed any more.

The body is bounded, and so is what one request may ask for. A prompt is a list of tokens, or a text of one per word.
The request of a client that hangs up is aborted at once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from examples import wire
from examples.engine.engine import BusyError, Elsewhere, Engine
from examples.engine.exposition import CONTENT_TYPE

OUTPUT_TOKENS_MAX: Final = 100_000
EVENTS: Final = "text/event-stream"
_WORD: Final = "word "


class RequestError(ValueError):
    """What was asked cannot be read; the message says why."""


class Serving:
    """Answers requests to one engine."""

    def __init__(self, engine: Engine, model: str, host: str) -> None:
        self._engine = engine
        self._model = model
        self._host = host
        self.port = 0

    async def handle(self, request: wire.Request, reply: wire.Reply) -> None:
        """Answer one request."""
        match request.method, request.path:
            case "GET", "/health" if self._engine.is_draining:
                await reply.refuse(503, "the engine drains")
            case "GET", "/health":
                await reply.whole(wire.OK, b"{}")
            case "GET", "/metrics":
                page = self._engine.meters.page(self._engine.batch, asyncio.get_running_loop().time())
                await reply.whole(wire.OK, page, CONTENT_TYPE)
            case "GET", "/v1/models":
                await reply.whole(wire.OK, json.dumps({"data": [{"id": self._model, "object": "model"}]}).encode())
            case "POST", path if path.startswith("/kv/"):
                if await self._engine.hand_over(path.removeprefix("/kv/")):
                    await reply.whole(wire.OK, b"{}")
                else:
                    await reply.refuse(404, "this KV is not here")
            case "POST", "/v1/completions":
                await self._complete(request.body, reply)
            case _:
                await reply.refuse(404, "there is nothing here")

    async def _complete(self, body: bytes, reply: wire.Reply) -> None:
        try:
            asked = _object(body)
            prompt, output = _prompt_tokens(asked), _output_tokens(asked)
            transfer = asked.get("kv_transfer_params") or {}
            source = _source(transfer)
            keeps = bool(transfer.get("do_remote_decode"))
            async with self._engine.generating(prompt, output, keeps=keeps, source=source) as generation:
                await generation.resident()
                where = {}
                if keeps:
                    where = {"remote_host": self._host, "remote_port": self.port}
                    where["remote_request_id"] = generation.kept_as
                if asked.get("stream"):
                    await reply.start(wire.OK, EVENTS)
                    async for count in generation.tokens():
                        await reply.send(self._event(_WORD * count, ended=generation.sequence.is_done))
                    await reply.send(b"data: [DONE]\n\n")
                else:
                    await reply.start(wire.OK, wire.JSON)
                    async for _ in generation.tokens():
                        pass
                    await reply.send(json.dumps(self._whole(prompt, output, where)).encode())
                await reply.finish()
        except BusyError as error:
            await reply.refuse(503, str(error))
        except ValueError as error:
            await reply.refuse(400, str(error))

    def _event(self, text: str, *, ended: bool) -> bytes:
        choice = {"index": 0, "text": text, "finish_reason": "length" if ended else None}
        return (
            f"data: {json.dumps({'object': 'text_completion', 'model': self._model, 'choices': [choice]})}\n\n".encode()
        )

    def _whole(self, prompt: int, output: int, where: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "object": "text_completion",
            "model": self._model,
            "choices": [{"index": 0, "text": _WORD * output, "finish_reason": "length"}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output},
            **({"kv_transfer_params": where} if where else {}),
        }


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        asked = json.loads(body)
    except ValueError:
        raise RequestError("the body is not JSON") from None
    if not isinstance(asked, dict):
        raise RequestError("the body is not an object")
    return asked


def _prompt_tokens(asked: Mapping[str, Any]) -> int:
    match asked.get("prompt"):
        case str(text) if text.split():
            return len(text.split())
        case list(tokens) if tokens and all(isinstance(token, int) for token in tokens):
            return len(tokens)
        case _:
            raise RequestError("prompt: a text or a list of tokens, not empty")


def _output_tokens(asked: Mapping[str, Any]) -> int:
    output = asked.get("max_tokens", 16)
    if not isinstance(output, int) or not 1 <= output <= OUTPUT_TOKENS_MAX:
        raise RequestError(f"max_tokens: 1 to {OUTPUT_TOKENS_MAX}")
    return output


def _source(transfer: object) -> Elsewhere | None:
    if not isinstance(transfer, dict):
        raise RequestError("kv_transfer_params: an object")
    name = transfer.get("remote_request_id")
    if name is None:
        return None
    host, port = transfer.get("remote_host"), transfer.get("remote_port")
    if not isinstance(name, str) or not name.isalnum() or not isinstance(host, str) or not isinstance(port, int):
        raise RequestError("kv_transfer_params: remote_host, remote_port and remote_request_id together")
    return Elsewhere(host=host, port=port, name=name)
