"""Kept listings: as long as somebody may ask for their next page, and no longer."""

from __future__ import annotations

import pytest

from grove_server.api.pages import AGE_S_MAX, Listings
from grove_server.api.reasons import ApiError, Reason
from grove_server.resources.meta import Metadata
from grove_server.resources.workload import PodTemplate

ITEMS = [PodTemplate(metadata=Metadata(name=f"t-{number}"), clique="c", hash="h", pod_spec={}) for number in range(3)]


class Clock:
    """A clock that a test sets."""

    now_s = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def test_abandoned_listings_go_with_the_next_list() -> None:
    """A listing that nobody goes on with is let go when another list is begun or kept, not only at the next page."""
    clock = Clock()
    listings = Listings(clock)
    listings.keep(listings.begin("q", ITEMS, 1, "token"))
    assert listings.item_count == 3
    clock.now_s = AGE_S_MAX + 1.0
    begun = listings.begin("q", ITEMS, 2, "token")
    assert listings.item_count == 0
    listings.keep(begun)
    clock.now_s *= 2
    late = listings.begin("q", ITEMS[:1], 2, "token")
    clock.now_s += 1.0
    listings.keep(late)
    assert listings.item_count == 1


def test_a_listing_is_there_for_its_time() -> None:
    """A page token is good until its listing is too old; then the client lists anew."""
    clock = Clock()
    listings = Listings(clock)
    token = listings.token(listings.keep(listings.begin("q", ITEMS, 1, "token")), 1)
    clock.now_s = AGE_S_MAX - 1.0
    listings.keep(listings.begin("another", ITEMS, 2, "token"))
    assert listings.resume(token, "q")[2] == 1
    clock.now_s = AGE_S_MAX + 1.0
    listings.begin("another", ITEMS, 2, "token")
    with pytest.raises(ApiError) as caught:
        listings.resume(token, "q")
    assert caught.value.reason is Reason.PAGE_TOKEN_EXPIRED
