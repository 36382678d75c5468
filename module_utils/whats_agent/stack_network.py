# SPDX-License-Identifier: GPL-3.0-or-later
"""The network between nginx and the agent: fixed addresses, so that the agent can know its proxy instead of guessing it.

The agent believes `X-Forwarded-For` of nginx's own address only. That address is only known beforehand in a network whose subnet
we chose; and a subnet that is chosen may collide with one that the server reaches already.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import WhatsAgentError

Subnet = ipaddress.IPv4Network
_ROUTE_IS_UP = 0x1


@dataclass(frozen=True)
class Route:
    """One way out of the server: a subnet and the interface it is reached by."""

    subnet: Subnet
    interface: str


@dataclass(frozen=True)
class Present:
    """The network as the engine has it; `interface` is its bridge on the host, `attached` its containers' names."""

    subnet: str
    ip_range: str
    interface: str
    attached: tuple[str, ...]


def parse_network(attributes: Mapping[str, Any]) -> Present:
    """Turn the engine's document about a bridge network into a `Present`."""
    config = ((attributes.get("IPAM") or {}).get("Config") or [{}])[0]
    return Present(
        subnet=str(config.get("Subnet", "")),
        ip_range=str(config.get("IPRange", "")),
        interface=(attributes.get("Options") or {}).get("com.docker.network.bridge.name")
        or f"br-{attributes['Id'][:12]}",
        attached=tuple(sorted(end["Name"] for end in (attributes.get("Containers") or {}).values())),
    )


def parse_routes(table: str) -> list[Route]:
    """The routes of `/proc/net/route`, without the default route. Its addresses are hexadecimal in the host's byte order."""
    routes = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8 or not int(fields[3], 16) & _ROUTE_IS_UP:
            continue
        address, mask = (ipaddress.IPv4Address(struct.pack("=I", int(fields[at], 16))) for at in (1, 7))
        if int(mask):
            routes.append(Route(ipaddress.IPv4Network(f"{address}/{mask}", strict=False), fields[0]))
    return routes


def must_go(wanted: Subnet, ip_range: Subnet, present: Present | None, routes: Iterable[Route]) -> bool:
    """Tell whether the present network must be removed, so that compose makes it anew with the subnet that is wanted.

    Raises WhatsAgentError where that subnet is somebody else's.
    """
    own = present.interface if present else ""
    taken = [route for route in routes if route.interface != own and route.subnet.overlaps(wanted)]
    if taken:
        told = ", ".join(f"{route.subnet} on {route.interface}" for route in taken)
        raise WhatsAgentError(
            f"stack_frontend_subnet {wanted} collides with {told}: choose another private /24 for stack_frontend_subnet",
            subnet=str(wanted),
            taken=[str(route.subnet) for route in taken],
        )
    return present is not None and (present.subnet, present.ip_range) != (str(wanted), str(ip_range))
