# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the server, with its own Python: print when (CLOCK_MONOTONIC) the database behind a socket folder takes a write.

    python3 - SOCKET_FOLDER LIMIT_SECONDS < recovery_first_write.py

It begins to look once the database has failed to answer or to write: one that still runs on a broken volume does not count.
With a third argument `now` the first success counts.
"""

import sys
import time

import psycopg

POLL_S = 0.05


def writes(folder: str) -> bool:
    """Try one committed write."""
    try:
        with psycopg.connect(
            host=folder, user="postgres", dbname="whats_agent", connect_timeout=2, application_name="benchmark"
        ) as connection:
            connection.execute("insert into benchmark.writes default values")
    except psycopg.Error:
        return False
    return True


def main() -> int:
    """Poll until the first write after a failure."""
    folder, limit = sys.argv[1], float(sys.argv[2])
    failed = "now" in sys.argv[3:]
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if not writes(folder):
            failed = True
        elif failed:
            print(time.monotonic())
            return 0
        time.sleep(POLL_S)
    print(f"no write within {limit:.0f} s", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
