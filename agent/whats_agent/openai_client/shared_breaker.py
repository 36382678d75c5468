# SPDX-License-Identifier: GPL-3.0-or-later
"""The breaker's state in Redis, so that all worker processes hold back together. Without Redis each has its own."""

import logging
import time
from collections.abc import Callable

import redis

from whats_agent import logs
from whats_agent.openai_client.breaker import Breaker

KEY = "whats_agent:state:breaker:openai"
LOOK_SECONDS = 1.0
REST_SECONDS = 5.0

_log = logging.getLogger("whats_agent.openai")


class SharedBreaker(Breaker):
    """A Breaker that tells the others when it opens and listens to theirs."""

    def __init__(self, failures: int, open_seconds: float, client: "redis.Redis") -> None:
        super().__init__(failures, open_seconds)
        self._redis = client
        self._open_for = open_seconds
        self._looked_at = 0.0
        self._others_open = False
        self._rest_until = 0.0
        self._alone = False

    def allows(self) -> bool:
        """Whether a call may be made, by this process's own count and by what the others say."""
        return not self._others() and super().allows()

    def succeeded(self) -> None:
        """A call went well: open for everybody."""
        was_open = self.is_open
        super().succeeded()
        if was_open:
            self._others_open = False
            self._try(lambda: self._redis.delete(KEY))

    def failed(self) -> None:
        """A call failed."""
        super().failed()
        if self.is_open:
            # A little shorter than the pause itself: the process whose pause ends first makes the trial call.
            self._try(lambda: self._redis.set(KEY, "open", px=max(int(self._open_for * 900), 1)))

    def _others(self) -> bool:
        if self.is_open:
            return False  # our own clock decides
        moment = time.monotonic()
        if moment - self._looked_at >= LOOK_SECONDS:
            self._looked_at = moment
            self._others_open = bool(self._try(lambda: self._redis.exists(KEY)))
        return self._others_open

    def _try(self, call: Callable[[], object]) -> object:
        """Ask Redis; when it does not answer, leave it alone for a while and say None."""
        if time.monotonic() < self._rest_until:
            return None
        try:
            answer = call()
        except redis.RedisError as error:
            self._rest_until = time.monotonic() + REST_SECONDS
            if not self._alone:
                _log.warning(logs.fields(event="breaker_not_shared", reason=type(error).__name__))
            self._alone = True
            return None
        if self._alone:
            _log.info(logs.fields(event="breaker_shared_again"))
        self._alone = False
        return answer
