# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the stack's Redis lies on a server, how it is meant to be set, and how to reach it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .compose import PROJECT
from .errors import WhatsAgentError

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE = "redis"
DATA_DIR = "/var/lib/redis"
UID, GID = 64012, 64000
PORT = 6379
ENV_NAMES = ("REDIS_URL", "REDIS_PASSWORD")
CACHE = "whats_agent:cache:"
STATE = "whats_agent:state:"
# With more than FIT of its container's memory Redis may be killed while it forks for a dump; ROOM is then what it gets.
FIT, ROOM = 0.75, 0.6
_UNITS = {"": 1, "b": 1, "k": 1000, "kb": 1024, "m": 1000**2, "mb": 1024**2, "g": 1000**3, "gb": 1024**3}


@dataclass(frozen=True)
class RedisPlace:
    """The paths and names of one stack's Redis."""

    stack_dir: Path = Path("/opt/whats_agent")
    state_dir: Path = Path("/var/lib/whats_agent")
    project: str = PROJECT

    @property
    def env_path(self) -> Path:
        """Return the stack's `.env`."""
        return self.stack_dir / ".env"

    @property
    def configuration_path(self) -> Path:
        """Return the configuration that the container mounts."""
        return self.stack_dir / "config" / "redis" / "redis.conf"


@dataclass(frozen=True)
class Wanted:
    """How Redis is meant to be set. `maxmemory` is bytes, 0 for none."""

    maxmemory: int
    policy: str

    def for_limit(self, limit: int) -> Wanted:
        """Return it with a `maxmemory` that fits a container's memory limit (bytes, 0 for none)."""
        if fits(self.maxmemory, limit):
            return self
        return Wanted(int(limit * ROOM), self.policy)


def fits(maxmemory: int, limit: int) -> bool:
    """Tell whether Redis, filled up to `maxmemory`, stays within its container's limit."""
    return limit == 0 or 0 < maxmemory <= limit * FIT


def parse_bytes(text: str) -> int:
    """Read a size as Redis writes it in its configuration."""
    word = text.strip().lower()
    digits = word.rstrip("bkmg")
    try:
        return int(digits) * _UNITS[word[len(digits) :]]
    except (ValueError, KeyError) as error:
        raise WhatsAgentError(f"{text!r} is no size that Redis knows", value=text) from error


def parse_configuration(text: str, source: str = "redis.conf") -> Wanted:
    """Read what matters here out of redis.conf."""
    values: dict[str, str] = {}
    for raw in text.splitlines():
        name, _, value = raw.strip().partition(" ")
        if name and not name.startswith("#"):
            values[name.lower()] = value.strip()
    missing = [name for name in ("maxmemory", "maxmemory-policy") if not values.get(name)]
    if missing:
        raise WhatsAgentError(f"{source} does not set {', '.join(missing)}", path=source, missing=missing)
    return Wanted(parse_bytes(values["maxmemory"]), values["maxmemory-policy"])


def read_configuration(path: Path) -> Wanted:
    """Read the configuration that the container mounts."""
    try:
        return parse_configuration(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise WhatsAgentError(f"cannot read {path}: {error}", path=str(path)) from error


@contextlib.contextmanager
def redis_at(address: str, password: str, *, timeout_s: float = 3.0) -> Iterator[Any]:
    """Yield a client of the Redis at an address; what Redis or the network refuses is one WhatsAgentError.

    Its `details` hold `refused: password` when the password does not fit, `timeout` when nothing is answered in time.
    """
    try:
        import redis
    except ImportError as error:
        raise WhatsAgentError("python3-redis is missing: apt-get install python3-redis") from error

    client = redis.Redis(
        host=address, port=PORT, password=password, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
    )
    try:
        yield client
    except redis.exceptions.AuthenticationError as error:
        raise WhatsAgentError(f"Redis refuses the password: {error}", refused="password") from error
    except redis.exceptions.TimeoutError as error:
        raise WhatsAgentError(f"Redis does not answer within {timeout_s:g} s", refused="timeout") from error
    except redis.exceptions.RedisError as error:
        kind = "loading" if isinstance(error, redis.exceptions.BusyLoadingError) else "error"
        raise WhatsAgentError(f"Redis: {error}", refused=kind) from error
    finally:
        client.close()
