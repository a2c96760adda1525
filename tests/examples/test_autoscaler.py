"""The autoscaling example whole: server, engines and router as processes, and an autoscaler that reads their pages."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.autoscaler_process import AutoscalerProcess
from tests.examples.elastic import POLICY, clients, of_role, started
from tests.onebox.box import Box, is_ready

# A test does not wait for the minute that the example takes to shrink.
IMPATIENT: Final = (
    ("mode: recommend", "mode: apply"),
    ("stabilizationWindowSeconds: 60", "stabilizationWindowSeconds: 2"),
    ("burstMemory: 1m0s", "burstMemory: 2s\n        cooldownAfterUp: 2s"),
)


def impatient_policy() -> str:
    """Return the example's policy as one that scales, and soon shrinks."""
    text = POLICY.read_text(encoding="utf-8")
    for found, wanted in IMPATIENT:
        assert found in text
        text = text.replace(found, wanted)
    return text


async def test_decode_follows_long_answers_and_no_request_is_lost(box: Box, tmp_path: Path) -> None:
    """Long answers to short prompts: decode grows, prefill does not; afterwards decode shrinks and aborts nothing."""
    router = await started(box)
    await box.grove.apply_manifest(impatient_policy(), default_namespace=box.namespace)
    flags = ("--scrape", "--tick-s", "1", "--window-s", "5")
    with AutoscalerProcess(tmp_path / "autoscaler", box.server.address, "", flags=flags):
        async with clients(router, 36, prompt=10, output=150) as load:
            pods = await box.see(
                lambda pods: sum(map(is_ready, of_role(pods, "decode"))) >= 3, "decode has grown", within_s=60.0
            )
            assert len(of_role(pods, "prefill")) == 1
            await load.go_on(80)
            assert load.failures == []
        async with clients(router, 2, prompt=10, output=150) as trickle:
            await box.see(lambda pods: len(of_role(pods, "decode")) == 1, "decode has shrunk", within_s=90.0)
            await trickle.go_on(4)
            assert trickle.failures == []
        await box.grove.scaling_policies.delete(["elastic"], namespace=box.namespace)
