"""A reader that follows all pods over crashes by its token alone, and notices whatever does not fit."""

from __future__ import annotations

import asyncio
from typing import Final

import grpc

from grove.v1.pod_pb2 import PodServiceWatchResponse
from grove_client.calls import Caller
from tests.crash.load import NAMESPACE

ANSWER_MAX_S: Final = 15.0


class Follower:
    """What a watcher knows: uid and version of each pod by name, and the token of the last message."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[str, int]] = {}
        self.token = ""
        self.resumed = 0
        self.expired = 0
        self.is_synced = False

    async def follow(self, address: str) -> None:
        """Resume from the token, or start anew when told that it is too old; ends when the server is gone."""
        async with grpc.aio.insecure_channel(address) as channel:
            caller = Caller(channel)
            code = await self._read(caller)
            if code is grpc.StatusCode.OUT_OF_RANGE:
                self.expired += 1
                self.token = ""
                code = await self._read(caller)
        assert code is grpc.StatusCode.UNAVAILABLE, code

    async def _read(self, caller: Caller) -> grpc.StatusCode:
        """Read to the end of the stream, and return what ended it. TimeoutError when the server is silent."""
        is_resuming = bool(self.token)
        self.is_synced = False
        if not is_resuming:
            # Cut off before it was synced, it has no token and is told everything from the start.
            self.known.clear()
        call = caller.stream("/grove.v1.PodService/Watch", {"namespace": NAMESPACE, "resume_token": self.token})
        try:
            while True:
                async with asyncio.timeout(ANSWER_MAX_S):
                    message = await call.read()
                if not isinstance(message, PodServiceWatchResponse):
                    return await call.code()
                self._take(message)
                if message.type == "SYNCED":
                    self.is_synced = True
                    self.resumed += is_resuming
        except grpc.aio.AioRpcError as error:
            return error.code()

    def _take(self, message: PodServiceWatchResponse) -> None:
        self.token = message.resume_token or self.token
        if message.type in ("SYNCED", "BOOKMARK"):
            return
        metadata = message.object.metadata
        old = self.known.get(metadata.name)
        version = int(metadata.resource_version)
        if message.type == "DELETED":
            # What came and went unread is told as its deletion alone.
            assert old is None or old[0] == metadata.uid, f"{metadata.name} deleted as {metadata.uid}, known as {old}"
            self.known.pop(metadata.name, None)
            return
        assert message.type == "ADDED" or old is not None, f"{metadata.name} was modified and never told of"
        if old is not None:
            assert old[0] == metadata.uid, f"{metadata.name} became another object unseen"
            assert version > old[1], f"{metadata.name} went from {old[1]} to {version}"
        self.known[metadata.name] = (metadata.uid, version)
