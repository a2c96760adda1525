"""Why a gang waits that placement was not even asked for: each reason as one word, in one place for all who say it.

What placement itself answers has codes of its own (`results.VerdictCode`); a queue that takes no gangs says so in the
words of `resources.queues`.
"""

from __future__ import annotations

from typing import Final

WAITING_FOR_BASE: Final = "WaitingForBaseGang"
WAITING_FOR_PODS: Final = "WaitingForPods"
WAITING_FOR_VICTIMS: Final = "WaitingForVictims"
QUEUE_LIMIT: Final = "QueueLimit"
QUEUE_BLOCKED: Final = "QueueBlocked"
TOPOLOGY_UNAVAILABLE: Final = "TopologyUnavailable"
NOT_ANSWERED: Final = "NotAnswered"
"""Of a what-if only: its work was used up before it came to the gang."""
