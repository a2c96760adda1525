"""Pages of a list that all show one moment.

The first page keeps the rest of its list: references to immutable resources, so a kept listing costs eight bytes an
item and whatever changed since. A page token names the listing and the position, so asking for a page again gives the
same page. Listings are bounded in number, in items and in age (the next list or page lets old ones go); a token whose
listing is gone is answered OUT_OF_RANGE, and the client lists anew. Nothing of it is stored: a restart forgets them.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final

from grove_server.api.reasons import ApiError, Reason
from grove_server.resources.meta import Resource

LISTINGS_MAX: Final = 64
KEPT_ITEMS_MAX: Final = 2_000_000
AGE_S_MAX: Final = 300.0
_ID_LENGTH: Final = 16
_TOKEN_LENGTH_MAX: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One list at one moment."""

    query: Hashable
    items: Sequence[Resource]
    resource_version: int
    resume_token: str
    created_s: float


class Listings:
    """Keeps the lists that have further pages."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._listings: OrderedDict[str, Listing] = OrderedDict()
        self._item_count = 0

    @property
    def item_count(self) -> int:
        """How many items all kept listings have together."""
        return self._item_count

    def begin(self, query: Hashable, items: Sequence[Resource], resource_version: int, resume_token: str) -> Listing:
        """Return a listing that is not kept yet."""
        self._drop_expired()
        return Listing(
            query=query,
            items=items,
            resource_version=resource_version,
            resume_token=resume_token,
            created_s=self._monotonic(),
        )

    def keep(self, listing: Listing) -> str:
        """Keep a listing and return its id, dropping the oldest ones beyond the bounds."""
        self._drop_expired()
        listing_id = secrets.token_hex(_ID_LENGTH // 2)
        self._listings[listing_id] = listing
        self._item_count += len(listing.items)
        while len(self._listings) > LISTINGS_MAX or (self._item_count > KEPT_ITEMS_MAX and len(self._listings) > 1):
            self._drop_oldest()
        return listing_id

    def resume(self, token: str, query: Hashable) -> tuple[str, Listing, int]:
        """Return id, listing and position of a page token. Raises ApiError."""
        self._drop_expired()
        listing_id, _, position_text = token.partition(".")
        if (
            len(token) > _TOKEN_LENGTH_MAX
            or len(listing_id) != _ID_LENGTH
            or not (position_text.isascii() and position_text.isdecimal())
        ):
            raise ApiError(reason=Reason.INVALID_PAGE_TOKEN, message="pageToken: not a token that this server gave out")
        listing = self._listings.get(listing_id)
        if listing is None:
            raise ApiError(
                reason=Reason.PAGE_TOKEN_EXPIRED, message="the listing of this page token is gone; list again"
            )
        if listing.query != query or int(position_text) >= len(listing.items):
            raise ApiError(
                reason=Reason.INVALID_PAGE_TOKEN, message="pageToken: it belongs to another query than this one"
            )
        return listing_id, listing, int(position_text)

    @staticmethod
    def token(listing_id: str, position: int) -> str:
        """Return the token of the page that starts at *position*."""
        return f"{listing_id}.{position}"

    def _drop_expired(self) -> None:
        oldest_s = self._monotonic() - AGE_S_MAX
        while self._listings and next(iter(self._listings.values())).created_s < oldest_s:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, listing = self._listings.popitem(last=False)
        self._item_count -= len(listing.items)
