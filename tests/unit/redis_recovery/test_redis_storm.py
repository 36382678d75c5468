# SPDX-License-Identifier: GPL-3.0-or-later
"""When evictions are a storm and when a cache at work: pairs of `INFO` captured a second apart of a Redis in each state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible.module_utils.whats_agent.clock import Clock
from ansible.module_utils.whats_agent.docker_host import ExecResult
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.redis_check import check_evictions, parse_info
from ansible.module_utils.whats_agent.redis_observe import at_work, look_inside
from ansible.module_utils.whats_agent.redis_storm import (
    EVICTED_AT_LEAST,
    FULL_AGAIN_S,
    Sample,
    Turnover,
    full_again,
    judge,
    sample,
    turnover,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

DATA = Path(__file__).parent / "data" / "info"


def info(name: str) -> dict[str, str]:
    """Load one captured answer."""
    return parse_info((DATA / name).read_text(encoding="utf-8"))


def pair(name: str) -> tuple[Sample, Sample]:
    """Load two samples taken a second apart."""
    return sample(info(f"{name}.1"), 100.0), sample(info(f"{name}.2"), 101.0)


def seen(name: str) -> Turnover:
    """Load what happened between two samples."""
    found = turnover(*pair(name))
    assert found is not None
    return found


STORMS = {
    "full_idle": False,
    "storm": True,
    "storm_over": False,
    "served": False,  # fifty a second go, and all that is read is there
    "thrash": True,  # what is read is never there
    "wide": False,  # 350 a second go of 420 000: each stays for twenty minutes
    "shrink": False,  # the limit was lowered under it: keys go, none come
    "settling": False,  # 40 000 a second go since one script overran the limit, few come
}


@pytest.mark.parametrize("name", STORMS)
def test_a_storm_is_told_from_a_cache_at_work(name: str) -> None:
    assert seen(name).storm is STORMS[name]


def test_a_storm_is_described_by_what_comes_goes_and_stays() -> None:
    found = seen("storm")
    assert (found.evicted, found.arrived, found.keys) == (199, 200, 1149)
    assert found.lifetime == pytest.approx(5.8, abs=0.1)
    assert seen("full_idle").lifetime is None


def test_a_few_big_keys_are_a_storm_at_few_evictions_a_second() -> None:
    few = Turnover(seconds=1.0, keys=20, evicted=EVICTED_AT_LEAST, arrived=EVICTED_AT_LEAST, hits=0, misses=0)
    assert few.storm
    assert not replace(few, evicted=EVICTED_AT_LEAST - 1).storm


def test_counters_that_were_set_back_tell_nothing() -> None:
    assert turnover(*pair("reset")) is None
    assert not judge(*pair("reset"), room=False)[0]


def test_keys_are_counted_as_the_library_parses_them_too() -> None:
    parsed: dict[str, Any] = {**info("storm.1"), "db0": {"keys": 7, "expires": 7}, "db1": {"keys": 2, "expires": 0}}
    assert sample(parsed, 0.0).keys == 9
    assert sample(info("storm.1"), 0.0).keys == 1148


MB = 1024 * 1024
ROOMY = Sample(at=0.0, used=10 * MB, maxmemory=128 * MB, keys=10, evicted=50, expired=0, hits=0, misses=0)


@pytest.mark.parametrize(
    ("later", "room", "ok"),
    [
        (replace(ROOMY, at=1.0), True, True),
        (replace(ROOMY, at=1.0, used=12 * MB), True, False),  # full again in a minute
        (replace(ROOMY, at=1.0, used=12 * MB), False, True),
        (replace(ROOMY, at=1.0, used=10 * MB + 100_000), True, True),
        (replace(ROOMY, at=1.0, used=9 * MB), True, True),
    ],
)
def test_room_that_was_made_has_to_last(later: Sample, room: bool, ok: bool) -> None:
    assert judge(ROOMY, later, room=room)[0] is ok


def test_a_full_cache_at_work_is_well_after_room_was_made() -> None:
    assert judge(*pair("served"), room=True)[0]
    assert not judge(*pair("storm"), room=True)[0]
    assert not judge(*pair("storm"), room=False)[0]


def test_how_soon_memory_is_full_again() -> None:
    assert full_again(ROOMY, replace(ROOMY, at=2.0, used=12 * MB)) == pytest.approx(116.0)
    assert full_again(ROOMY, replace(ROOMY, at=1.0)) is None
    assert full_again(replace(ROOMY, maxmemory=0), replace(ROOMY, at=1.0, used=99 * MB, maxmemory=0)) is None
    assert FULL_AGAIN_S > 100


class FakeTime:
    """A clock that moves only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> Clock:
        """Return it as a Clock."""
        return Clock(boottime=lambda: self.now, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class FakeDocker:
    """Answers redis-cli in the container."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.asked: list[list[str]] = []

    def execute(self, _container: str, argv: Sequence[str], **_named: Any) -> ExecResult:
        """Answer."""
        self.asked.append(list(argv))
        return ExecResult(0, self.answer, "")


def check(first: str, second: str, *, room: bool) -> tuple[dict[str, Any] | None, FakeDocker, float]:
    """Have the check see one answer, then the other."""
    docker, passed = FakeDocker((DATA / second).read_text(encoding="utf-8")), FakeTime()
    found = check_evictions(docker, "c", info(first), passed.clock(), room=room)  # type: ignore[arg-type]
    return found, docker, passed.now


def test_verification_sees_a_storm_that_goes_on() -> None:
    found, docker, waited = check("storm.1", "storm.2", room=False)
    assert found is not None
    assert not found["ok"]
    assert "a key stays about 6 s" in found["detail"]
    assert docker.asked == [["redis-cli", "INFO"]]
    assert waited > 0


def test_verification_does_not_wait_where_no_key_ever_had_to_go() -> None:
    docker, passed = FakeDocker(""), FakeTime()
    fresh = {**info("storm.1"), "evicted_keys": "0"}
    assert check_evictions(docker, "c", fresh, passed.clock(), room=False) is None  # type: ignore[arg-type]
    roomy = {**info("storm.1"), "used_memory": "1000000"}
    assert check_evictions(docker, "c", roomy, passed.clock(), room=False) is None  # type: ignore[arg-type]
    assert passed.now == 0
    assert docker.asked == []


def test_an_info_that_redis_refuses_is_no_good_look() -> None:
    with pytest.raises(WhatsAgentError, match="NOAUTH"):
        check_evictions(
            FakeDocker("NOAUTH Authentication required.\n"),  # type: ignore[arg-type]
            "c",
            info("storm.1"),
            FakeTime().clock(),
            room=False,
        )


class FakeClient:
    """A Redis that answers INFO from a list, and has no keys."""

    def __init__(self, *infos: dict[str, Any]) -> None:
        self.infos = list(infos)

    def info(self) -> dict[str, Any]:
        """Answer the next."""
        return self.infos.pop(0)

    def client_list(self) -> list[dict[str, Any]]:
        """Answer who is connected."""
        return CLIENTS

    def scan(self, **_named: Any) -> tuple[int, list[bytes]]:
        """Answer no keys."""
        return 0, []


CLIENTS: list[dict[str, Any]] = [
    {"addr": "172.19.0.5:50001", "idle": "0", "cmd": "set"},
    {"addr": "172.19.0.5:50002", "idle": "0", "cmd": "set"},
    {"addr": "127.0.0.1:41000", "idle": "0", "cmd": "eval"},
    {"addr": "172.19.0.9:41000", "idle": "0", "cmd": "hset"},
    {"addr": "172.19.0.6:41000", "idle": "90", "cmd": "set"},
    {"addr": "172.19.0.1:41000", "idle": "0", "cmd": "client|list"},
    {"addr": "172.19.0.1:41001", "idle": "0", "cmd": "ping"},
]


def test_who_is_at_work_is_told_by_the_containers_name() -> None:
    assert at_work(CLIENTS, {"172.19.0.5": "whats_agent-worker-1"}) == (
        "172.19.0.9 (hset)",
        "inside the redis container (eval)",
        "whats_agent-worker-1 (set)",
    )


def test_a_look_waits_only_where_keys_have_to_go() -> None:
    passed = FakeTime()
    full = look_inside(FakeClient(info("storm.1"), info("storm.2")), {}, passed.clock())
    assert full.turnover is not None
    assert full.turnover.storm
    assert full.clients
    assert passed.now > 0
    passed = FakeTime()
    for quiet in ({**info("storm.1"), "evicted_keys": "0"}, {**info("storm.1"), "used_memory": "1000000"}):
        assert look_inside(FakeClient(quiet), {}, passed.clock()).turnover is None
    assert passed.now == 0
