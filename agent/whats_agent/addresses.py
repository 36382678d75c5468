# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is calling, and who may see the views."""

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(text: str) -> tuple[Network, ...]:
    """A comma-separated setting as networks. Raises ValueError with the part that is none."""
    return tuple(ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())


def contains(wanted: Sequence[Network], address: str) -> bool:
    """Whether the address lies in one of the networks; what is no address lies in none."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    plain = getattr(ip, "ipv4_mapped", None) or ip
    return any(plain.version == network.version and plain in network for network in wanted)


def client_address(environ: Mapping[str, Any], trusted: Sequence[Network]) -> str:
    """The caller's address: the connection's own or, behind a trusted proxy, what that proxy saw.

    ``X-Forwarded-For`` is read from its right end, where the trusted proxies wrote; whatever stands left of the first address that
    is not one of theirs was sent by the caller and proves nothing.
    """
    address = str(environ.get("REMOTE_ADDR") or "-")
    if not contains(trusted, address):
        return address
    for hop in reversed(str(environ.get("HTTP_X_FORWARDED_FOR") or "").split(",")):
        candidate = hop.strip()
        try:
            ipaddress.ip_address(candidate)
        except ValueError:
            return address
        address = candidate
        if not contains(trusted, candidate):
            return address
    return address
