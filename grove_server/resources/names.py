"""Names: which ones are valid, and how each child of a set is called.

The patterns are Grove's, letter by letter, because manifests and scripts rely on them. They are only ever built, never
parsed: who needs the copy or the clique of a child reads its stored identity. Whether the names of a set fit and do not
meet those of another is decided once, at admission.

Pod names are derived, not drawn: a retried create meets the pod it made before instead of making a twin.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Final

LABEL_LENGTH_MAX: Final = 63
SUBDOMAIN_LENGTH_MAX: Final = 253
POD_SUFFIX_LENGTH: Final = 5

# Kubernetes' alphabet for generated names: no vowels and no 0, 1, 3, so that no words appear.
SAFE_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"

_BASE: Final = len(SAFE_ALPHABET)
_SUFFIX_COUNT: Final = _BASE**POD_SUFFIX_LENGTH
_PAIRS: Final = tuple(a + b for a in SAFE_ALPHABET for b in SAFE_ALPHABET)
_TRIPLES: Final = tuple(a + pair for a in SAFE_ALPHABET for pair in _PAIRS)

_DNS_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
_DNS_SUBDOMAIN: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")


def dns_label_problem(name: str) -> str | None:
    """Return why *name* is no DNS-1123 label, or None if it is one."""
    if not name:
        return "must not be empty"
    if len(name) > LABEL_LENGTH_MAX:
        return f"must have at most {LABEL_LENGTH_MAX} characters, has {len(name)}"
    if _DNS_LABEL.fullmatch(name) is None:
        return "must consist of lower case letters, digits and '-', and start and end with a letter or digit"
    return None


def dns_subdomain_problem(name: str) -> str | None:
    """Return why *name* is no DNS-1123 subdomain, or None if it is one."""
    if not name:
        return "must not be empty"
    if len(name) > SUBDOMAIN_LENGTH_MAX:
        return f"must have at most {SUBDOMAIN_LENGTH_MAX} characters, has {len(name)}"
    if _DNS_SUBDOMAIN.fullmatch(name) is None:
        return "must be lower case letters, digits, '-' and '.', with a letter or digit at both ends of each part"
    return None


def headless_service(set_name: str, copy: int) -> str:
    """Return the name of a copy's headless Service; its pods' subdomain."""
    return f"{set_name}-{copy}"


def service_address(set_name: str, copy: int, namespace: str) -> str:
    """Return the DNS name of a copy's headless Service (``GROVE_HEADLESS_SERVICE``)."""
    return f"{set_name}-{copy}.{namespace}.svc.cluster.local"


def standalone_clique(set_name: str, copy: int, clique: str) -> str:
    """Return the name of the PodClique of a clique that is in no group."""
    return f"{set_name}-{copy}-{clique}"


def scaling_group(set_name: str, copy: int, group: str) -> str:
    """Return the name of a copy's PodCliqueScalingGroup."""
    return f"{set_name}-{copy}-{group}"


def member_clique(group_name: str, group_replica: int, clique: str) -> str:
    """Return the name of a group member's PodClique; *group_name* is that of the PodCliqueScalingGroup."""
    return f"{group_name}-{group_replica}-{clique}"


def base_gang(set_name: str, copy: int) -> str:
    """Return the name of a copy's base gang."""
    return f"{set_name}-{copy}"


def scaled_gang(group_name: str, group_replica: int, min_available: int) -> str:
    """Return the name of the gang of a group replica beyond the group's minimum: counted from the minimum on."""
    return f"{group_name}-{group_replica - min_available}"


def topology_group(group_name: str, group_replica: int) -> str:
    """Return the name under which a gang lists the shared constraint of one group replica."""
    return f"{group_name}-{group_replica}"


def pod_name(clique_name: str, clique_uid: str, serial: int) -> str:
    """Return the name of the pod a clique creates as its *serial*-th (from 0).

    The suffix is a permutation of the serials, chosen by the clique's uid: two of the first 27^5 (14 million) pods of
    one clique never share a name, and a clique that was recreated under its old name starts somewhere else.
    """
    factor, shift = _suffix_permutation(clique_uid)
    value = (serial * factor + shift) % _SUFFIX_COUNT
    return f"{clique_name}-{_TRIPLES[value // 729]}{_PAIRS[value % 729]}"


def hostname(clique_name: str, pod_index: int) -> str:
    """Return the hostname of the pod at *pod_index*; unlike the pod's name it survives replacement."""
    return f"{clique_name}-{pod_index}"


def safe_digest(content: bytes, length: int) -> str:
    """Return *length* (at most 13) characters of the safe alphabet that stand for *content*."""
    value = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")
    characters = []
    for _ in range(length):
        value, digit = divmod(value, _BASE)
        characters.append(SAFE_ALPHABET[digit])
    return "".join(characters)


@lru_cache(maxsize=4096)
def _suffix_permutation(clique_uid: str) -> tuple[int, int]:
    """Return factor and shift of a permutation modulo 3^15: any factor that 3 does not divide makes one."""
    digest = hashlib.blake2b(clique_uid.encode(), digest_size=8).digest()
    factor = int.from_bytes(digest[:4], "big") % _SUFFIX_COUNT
    if factor % 3 == 0:
        factor += 1
    return factor, int.from_bytes(digest[4:], "big") % _SUFFIX_COUNT
