# SPDX-License-Identifier: GPL-3.0-or-later
"""A subnet that is somebody else's is refused, an outdated network makes way, a right one stays."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.stack_network import Present, must_go, parse_network, parse_routes

WANTED, RANGE = IPv4Network("10.213.64.0/24"), IPv4Network("10.213.64.128/25")
# As a server shows it: eth0 with a default route, docker0, a bridge, and an interface that is down.
ROUTES = """Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010011AC	0003	0	0	0	00000000	0	0	0
docker0	000012AC	00000000	0001	0	0	0	0000FFFF	0	0	0
br-1f2e3d4c5b6a	0040D50A	00000000	0001	0	0	0	00FFFFFF	0	0	0
tun9	0000000A	00000000	0000	0	0	0	000000FF	0	0	0
"""
# As Docker 26 describes the network of an earlier release.
OLD = {
    "Name": "whats_agent_frontend",
    "Id": "1f2e3d4c5b6a79881f2e3d4c5b6a79881f2e3d4c5b6a79881f2e3d4c5b6a7988",
    "IPAM": {"Driver": "default", "Options": None, "Config": [{"Subnet": "172.19.0.0/16", "Gateway": "172.19.0.1"}]},
    "Containers": {
        "b": {"Name": "whats_agent-nginx-1", "IPv4Address": "172.19.0.4/16"},
        "a": {"Name": "whats_agent-app-1", "IPv4Address": "172.19.0.3/16"},
    },
    "Options": {},
}


def present(subnet: str = "10.213.64.0/24", ip_range: str = "10.213.64.128/25") -> Present:
    return Present(subnet, ip_range, "br-1f2e3d4c5b6a", ())


def test_routes_are_read_without_the_default_route_and_what_is_down() -> None:
    assert [(str(route.subnet), route.interface) for route in parse_routes(ROUTES)] == [
        ("172.18.0.0/16", "docker0"),
        ("10.213.64.0/24", "br-1f2e3d4c5b6a"),
    ]


def test_an_earlier_release_s_network_is_understood() -> None:
    seen = parse_network(OLD)
    assert seen == Present("172.19.0.0/16", "", "br-1f2e3d4c5b6a", ("whats_agent-app-1", "whats_agent-nginx-1"))
    assert must_go(WANTED, RANGE, seen, [])


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(None, False, id="not_there_yet"),
        pytest.param(present(), False, id="right"),
        pytest.param(present(subnet="10.1.2.0/24"), True, id="another_subnet"),
        pytest.param(present(ip_range=""), True, id="another_range"),
    ],
)
def test_only_an_outdated_network_must_go(seen: Present | None, expected: bool) -> None:
    assert must_go(WANTED, RANGE, seen, []) is expected


def test_our_own_route_is_no_collision() -> None:
    assert not must_go(WANTED, RANGE, present(), parse_routes(ROUTES))


def test_somebody_else_s_route_is_refused_by_name() -> None:
    with pytest.raises(WhatsAgentError, match=r"10\.213\.64\.0/24 on br-1f2e3d4c5b6a.*stack_frontend_subnet"):
        must_go(WANTED, RANGE, None, parse_routes(ROUTES))
