# SPDX-License-Identifier: GPL-3.0-or-later
"""Redis, for what may vanish.

Keys begin with ``whats_agent:state:``, or with ``whats_agent:cache:`` when they may be evicted at any time.
"""

import redis

from whats_agent.settings import DatabaseSettings


def redis_client(settings: DatabaseSettings, *, timeout: float) -> "redis.Redis":
    """A client with its own pool; ``timeout`` in seconds for connecting and for each answer. Connects when first used."""
    password = settings.redis_password.get_secret_value() if settings.redis_password else None
    return redis.Redis.from_url(
        settings.redis_url, password=password, socket_timeout=timeout, socket_connect_timeout=timeout, retry=None
    )
