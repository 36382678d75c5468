# SPDX-License-Identifier: GPL-3.0-or-later
"""gunicorn's settings; read by ``whats-agent serve``. Tuned by WEB_WORKERS, WEB_THREADS and the few below."""

import os
import threading

from whats_agent import logs
from whats_agent.app import watch_alerts  # loaded before the fork: the processes share its memory and start at once
from whats_agent.settings import WebSettings, load

bind = os.environ.get("WEB_BIND", "0.0.0.0:8000")
workers = int(os.environ.get("WEB_WORKERS", "2"))
threads = int(os.environ.get("WEB_THREADS", "16"))
worker_class = "gthread"
# Threads mostly wait for the disk, which many requests share; connections wait in the kernel's queue meanwhile.
backlog = 2048
worker_connections = 1000
keepalive = 75
timeout = 60
graceful_timeout = 25
limit_request_line = 4094
limit_request_fields = 50
limit_request_field_size = 8190
# The heartbeat file of gunicorn's workers must not wait for a disk.
worker_tmp_dir = "/dev/shm"  # noqa: S108 - memory of this container
control_socket_disable = True
forwarded_allow_ips = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")
accesslog = None  # nginx keeps the access log
proc_name = "whats-agent"
wsgi_app = "whats_agent.app:create_app()"


def post_fork(_server: object, _worker: object) -> None:
    """Open the log files in each process on its own."""
    settings = load(WebSettings)
    logs.set_up(settings.log_dir, settings.log_level)


def post_worker_init(_worker: object) -> None:
    """Begin to watch; of all web processes one at a time evaluates."""
    watch_alerts(load(WebSettings), threading.Event())
