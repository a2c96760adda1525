"""The example of a system on one machine does what its first lines say."""

from __future__ import annotations

from typing import Final

from tests.onebox.box import Box, get
from tests.tidy.sources import ROOT

EXAMPLE: Final = ROOT / "examples" / "one-box.yaml"


async def test_the_router_of_the_example_reaches_its_workers(box: Box) -> None:
    """All five pods run, and the router's answer comes from a prefill and a decode worker."""
    box.sets.append("one-box")
    await box.grove.apply_manifest(EXAMPLE.read_text(encoding="utf-8"), default_namespace=box.namespace)
    pods = await box.ready(5)
    router = next(pod for pod in pods if "-router-" in pod.metadata.name)
    answers = {(await get(router, "/v1/generate"))[1].decode() for _ in range(2)}
    workers = {word for answer in answers for word in answer.split() if word.startswith("one-box")}
    assert workers == {f"one-box-0-{role}-{index}" for role in ("prefill", "decode") for index in range(2)}
