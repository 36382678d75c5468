# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m doubles graph|openai``: serve one double with gunicorn on ``PORT`` (9001 or 9002 when unset)."""

from __future__ import annotations

import os
import sys

PORTS = {"graph": 9001, "openai": 9002}
MODULES = {"graph": "graph", "openai": "openai_chat"}


def server_command(name: str, port: int) -> list[str]:
    """One process, since a double keeps its state in memory, and threads enough for requests that hang."""
    return [
        sys.executable,
        "-m",
        "gunicorn",
        f"--bind=0.0.0.0:{port}",
        "--workers=1",
        "--worker-class=gthread",
        "--threads=64",
        "--keep-alive=75",
        "--graceful-timeout=2",
        # The container's root is read-only, and gunicorn wants its heartbeat file on a tmpfs.
        "--worker-tmp-dir=/dev/shm",
        "--no-control-socket",
        f"{__package__}.{MODULES[name]}:create_app()",
    ]


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1] not in PORTS:
        sys.exit(f"usage: python -m {__package__} {'|'.join(PORTS)}")
    name = sys.argv[1]
    command = server_command(name, int(os.environ.get("PORT") or PORTS[name]))
    os.execv(command[0], command)  # noqa: S606 - becomes gunicorn, so that signals reach it


if __name__ == "__main__":
    main()
