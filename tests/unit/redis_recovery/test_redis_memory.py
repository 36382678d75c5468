# SPDX-License-Identifier: GPL-3.0-or-later
"""Which keys go and which stay, what is set and what is left alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.redis_check import judge_agent, judge_memory, parse_info
from ansible.module_utils.whats_agent.redis_host import Wanted, fits, parse_bytes, parse_configuration
from ansible.module_utils.whats_agent.redis_keys import (
    family_of,
    give_cache_ttl,
    kind_of,
    prefix_of,
    take_census,
    unlink_cache,
    unlink_foreign,
)
from ansible.module_utils.whats_agent.redis_mend import differences, give_back

MB = 1024 * 1024


class FakeRedis:
    """Keys with their time to live, -1 for none; commands that would empty it do not exist."""

    def __init__(self, keys: dict[str, int]) -> None:
        self.keys = {key.encode(): ttl for key, ttl in keys.items()}

    def scan(self, cursor: int = 0, match: str | None = None, count: int = 0) -> tuple[int, list[bytes]]:
        prefix = match.rstrip("*").encode() if match else b""
        found = [key for key in self.keys if key.startswith(prefix)]
        assert count > 0
        half = len(found) // 2
        # The first key comes again at the end, as SCAN may do.
        return (1, found[:half]) if cursor == 0 else (0, [*found[half:], *found[:1]])

    def ttl(self, key: bytes) -> int:
        return self.keys.get(key, -2)

    def memory_usage(self, key: bytes, samples: int) -> int | None:
        return 100 * samples if key in self.keys else None

    def expire(self, key: bytes, seconds: int) -> int:
        self.keys[key] = seconds
        return 1

    def unlink(self, *keys: bytes) -> int:
        return sum(self.keys.pop(key, None) is not None for key in keys)

    def pipeline(self, *, transaction: bool) -> FakePipeline:
        assert not transaction
        return FakePipeline(self)


class FakePipeline:
    """Commands kept until executed."""

    def __init__(self, client: FakeRedis) -> None:
        self._client = client
        self._commands: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **named: self._commands.append((name, arguments, named))

    def execute(self) -> list[Any]:
        return [getattr(self._client, name)(*a, **n) for name, a, n in self._commands]


KEYS = {
    "whats_agent:cache:a": 60,
    "whats_agent:cache:b": -1,
    "whats_agent:state:breaker:openai": 20,
    "whats_agent:state:kept": -1,
    "other:1": -1,
    "other:2": 600,
    "plain": -1,
}


def names(client: FakeRedis) -> set[str]:
    """Return the keys that are left."""
    return {key.decode() for key in client.keys}


def test_evicting_removes_the_cache_and_nothing_else() -> None:
    client = FakeRedis(KEYS)
    assert unlink_cache(client, lambda: None) == 2
    assert names(client) == {name for name in KEYS if not name.startswith("whats_agent:cache:")}


def test_a_run_that_lost_its_lease_removes_nothing_more() -> None:
    client = FakeRedis(KEYS)

    def fenced() -> None:
        raise WhatsAgentError("another run holds the host")

    with pytest.raises(WhatsAgentError, match="another run"):
        unlink_cache(client, fenced)
    assert names(client) == set(KEYS)


def test_a_time_to_live_is_given_to_cache_keys_without_one() -> None:
    client = FakeRedis(KEYS)
    assert give_cache_ttl(client, 3600, lambda: None) == 1
    assert client.ttl(b"whats_agent:cache:b") == 3600
    assert client.ttl(b"whats_agent:cache:a") == 60
    assert client.ttl(b"whats_agent:state:kept") == -1


def test_of_foreign_keys_those_without_a_time_to_live_go() -> None:
    client = FakeRedis(KEYS)
    assert unlink_foreign(client, lambda: None) == 2
    assert names(client) == set(KEYS) - {"other:1", "plain"}


def test_the_census_counts_by_what_keys_are_for() -> None:
    census = take_census(FakeRedis({key: ttl for key, ttl in KEYS.items() if key != "other:1"}))
    assert (census.state.keys, census.state.without_ttl) == (2, 1)
    assert census.foreign.without_ttl == 1
    assert census.prefixes == {"(no prefix)": 1}
    assert census.complete


def test_the_census_tells_what_kinds_of_keys_take_most() -> None:
    census = take_census(FakeRedis({"whats_agent:cache:media:1": 9, "whats_agent:cache:media:2": 9, "sessions:7": -1}))
    assert max(census.kinds, key=lambda name: census.kinds[name]) == "whats_agent:cache:media"
    assert set(census.kinds) == {"whats_agent:cache:media", "sessions"}


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (b"whats_agent:cache:reply:5511999990000", "whats_agent:cache:reply"),
        (b"whats_agent:state:breaker:openai", "whats_agent:state:breaker"),
        (b"whats_agent:cache:5511999990000", "whats_agent:cache"),
        (b"sessions:5511999990000", "sessions"),
        (b"5511999990000", "(no prefix)"),
    ],
)
def test_a_kind_names_no_person(key: bytes, kind: str) -> None:
    assert kind_of(key) == kind


def test_a_census_whose_time_is_up_says_so() -> None:
    assert not take_census(FakeRedis(KEYS), budget_s=0).complete


def test_prefixes_tell_the_program_and_no_person() -> None:
    assert prefix_of(b"sessions:5511999990000") == "sessions"
    assert prefix_of(b"5511999990000") == "(no prefix)"
    assert family_of(b"whats_agent:cached") == "foreign"


@pytest.mark.parametrize(
    ("text", "size"),
    [("128mb", 128 * MB), ("1gb", 1024 * MB), ("5k", 5000), ("0", 0), ("134217728", 128 * MB), ("7B", 7)],
)
def test_sizes_are_read_as_redis_writes_them(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "12xb", "mb"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(WhatsAgentError, match="no size"):
        parse_bytes(text)


def test_the_configuration_must_set_limit_and_policy() -> None:
    text = "# c\nmaxmemory 128mb\nmaxmemory-policy allkeys-lru\n"
    assert parse_configuration(text) == Wanted(128 * MB, "allkeys-lru")
    with pytest.raises(WhatsAgentError, match="maxmemory-policy"):
        parse_configuration("maxmemory 128mb\n")


def test_redis_has_to_fit_its_container() -> None:
    assert fits(128 * MB, 256 * MB)
    assert fits(128 * MB, 0)
    assert not fits(0, 256 * MB)
    assert not fits(250 * MB, 256 * MB)
    assert Wanted(512 * MB, "p").for_limit(256 * MB).maxmemory < 256 * MB * 0.75
    assert Wanted(128 * MB, "p").for_limit(256 * MB).maxmemory == 128 * MB


WANTED = Wanted(128 * MB, "allkeys-lru")


@pytest.mark.parametrize(
    ("maxmemory", "policy", "changed"),
    [
        (128 * MB, "allkeys-lru", []),
        (0, "allkeys-lru", ["maxmemory"]),
        (250 * MB, "noeviction", ["maxmemory", "maxmemory-policy"]),
        (160 * MB, "allkeys-lru", []),  # somebody gave it more room, and it fits
    ],
)
def test_what_is_set_is_what_differs(maxmemory: int, policy: str, changed: list[str]) -> None:
    found = differences({"maxmemory": maxmemory, "maxmemory_policy": policy}, WANTED, 256 * MB)
    assert sorted(found) == changed


@pytest.mark.parametrize(
    ("maxmemory", "changed"),
    [(16 * MB, {"maxmemory": (str(16 * MB), str(128 * MB))}), (128 * MB, {}), (160 * MB, {})],
)
def test_a_lowered_limit_is_raised_where_that_is_asked_for(maxmemory: int, changed: dict[str, tuple[str, str]]) -> None:
    found = {"maxmemory": maxmemory, "maxmemory_policy": "allkeys-lru"}
    assert differences(found, WANTED, 256 * MB, lowered=True) == changed
    assert differences(found, WANTED, 256 * MB) == {}


def test_the_memory_is_judged_by_redis_clis_own_words() -> None:
    info = parse_info("# Memory\r\nused_memory:1000\r\nmaxmemory:2000\r\n")
    assert judge_memory(info)["ok"]
    assert not judge_memory({"used_memory": "3000", "maxmemory": "2000"})["ok"]
    assert not judge_memory({"used_memory": "3000", "maxmemory": "0"})["ok"]
    assert not judge_memory({})["ok"]


def test_the_agents_word_counts() -> None:
    assert judge_agent(200, b'{"parts": {"redis": {"state": "up"}}}')["ok"]
    down = judge_agent(200, b'{"parts": {"redis": {"state": "down", "reason": "TimeoutError"}}}')
    assert down == {"name": "agent", "ok": False, "detail": "down TimeoutError"}
    assert not judge_agent(None, b"", "ConnectionRefusedError: x")["ok"]
    assert not judge_agent(502, b"<html>")["ok"]


def test_the_folder_is_given_back_with_what_redis_loads(tmp_path: Path) -> None:
    (tmp_path / "dump.rdb").write_bytes(b"REDIS")
    (tmp_path / "dump.rdb").chmod(0o400)
    (tmp_path / "dump.rdb.damaged-20260101T000000Z").write_bytes(b"noise")
    (tmp_path / "dump.rdb.damaged-20260101T000000Z").chmod(0o400)
    said = [f"give {tmp_path / 'dump.rdb'} back to Redis"]
    mine = (os.getuid(), os.getgid())
    assert give_back(tmp_path, *mine, write=False) == said
    assert (tmp_path / "dump.rdb").stat().st_mode & 0o777 == 0o400
    assert give_back(tmp_path, *mine, write=True) == said
    assert (tmp_path / "dump.rdb").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "dump.rdb.damaged-20260101T000000Z").stat().st_mode & 0o777 == 0o400
    assert give_back(tmp_path, *mine, write=True) == []


def test_no_link_in_the_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("somebody's\n")
    (tmp_path / "outside").chmod(0o400)
    folder = tmp_path / "volume"
    folder.mkdir()
    (folder / "dump.rdb").symlink_to(tmp_path / "outside")
    # Another owner than the link's: it would have to be given back, were it a file.
    assert give_back(folder, os.getuid() + 1, os.getgid(), write=False) == [f"give {folder} back to Redis"]
    assert (tmp_path / "outside").stat().st_mode & 0o777 == 0o400


def test_a_dump_that_is_gone_again_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "iterdir", lambda _self: iter([tmp_path / "temp-17.rdb"]))
    assert give_back(tmp_path, os.getuid(), os.getgid(), write=True) == []
