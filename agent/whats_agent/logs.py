# SPDX-License-Identifier: GPL-3.0-or-later
"""Log files under one directory, as the operators' guide lays them out; one line per event, ``key=value`` fields.

``app.log`` has everything, ``errors.log`` errors and worse, ``security.log`` the logger ``whats_agent.security``,
``performance.log`` the logger ``whats_agent.performance``, ``business_metrics/`` and ``alerts/`` those of these names.
Several processes append to the same files (``O_APPEND``, one write per line) and reopen them after rotation. A log that cannot
be written (disk full) never stops the agent: the line goes to stderr only.
"""

import contextvars
import logging
import logging.handlers
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from whats_agent.masking import mask_text

correlation_id: contextvars.ContextVar[str] = contextvars.ContextVar("correlation_id", default="-")

SECURITY = "whats_agent.security"
PERFORMANCE = "whats_agent.performance"
BUSINESS = "whats_agent.business"
ALERTS = "whats_agent.alerts"


_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{8,64}")


def correlate(request_id: str | None) -> None:
    """Mark this thread's lines with the id that nginx gave the request; an absent or odd one becomes ``-``."""
    correlation_id.set(request_id if request_id and _REQUEST_ID.fullmatch(request_id) else "-")


class LineFormatter(logging.Formatter):
    """``2026-11-22T10:00:00.123Z INFO logger cid=… event=…``: one line whatever the message holds, secrets and numbers masked."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        message = record.getMessage()
        if record.exc_info:
            message = f"{message} error={quoted(self.formatException(record.exc_info))}"
        message = message.replace("\r", "\\r").replace("\n", "\\n")
        return f"{at} {record.levelname} {record.name} pid={record.process} cid={correlation_id.get()} {mask_text(message)}"


class SteadyFileHandler(logging.handlers.WatchedFileHandler):
    """Reopens after rotation like its parent; falls back to stderr while the file cannot be written."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.reopenIfNeeded()
            if self.stream is None:
                self.stream = self._open()
            self.stream.write(self.format(record) + self.terminator)
            self.flush()
        except OSError as error:
            sys.stderr.write(f"{self.format(record)} log_file={self.baseFilename} log_error={type(error).__name__}\n")
        except Exception:  # noqa: BLE001 - a line that cannot be made must not stop what it was about; told on stderr
            self.handleError(record)


def quoted(value: object) -> str:
    """A field's value: bare when it is one word, else in double quotes with quotes and line ends escaped."""
    text = str(value)
    if text and not any(character in text for character in ' "=\n\r\t'):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def fields(**values: object) -> str:
    """``event=sent attempt=2 reason="rate limit"`` from keyword arguments, in the order given."""
    return " ".join(f"{name}={quoted(value)}" for name, value in values.items())


def set_up(directory: Path, level: str) -> None:
    """Attach the files' handlers and stderr's to the root logger. Safe to call again after a fork."""
    formatter = LineFormatter()
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(formatter)
    root.addHandler(console)
    writable = _attach(root, directory / "app.log", logging.NOTSET, formatter)
    if not writable:
        logging.getLogger(__name__).error(fields(event="log_directory_not_writable", path=directory))
        return
    _attach(root, directory / "errors.log", logging.ERROR, formatter)
    for name, path in (
        (SECURITY, directory / "security.log"),
        (PERFORMANCE, directory / "performance.log"),
        (BUSINESS, directory / "business_metrics" / "business.log"),
        (ALERTS, directory / "alerts" / "alerts.log"),
    ):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        _attach(logger, path, logging.NOTSET, formatter)
    # These two fill a file of their own at a steady rate and would only dilute app.log.
    logging.getLogger(PERFORMANCE).propagate = False
    logging.getLogger(BUSINESS).propagate = False
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    logging.getLogger("openai").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(level)


def _attach(logger: logging.Logger, path: Path, level: int, formatter: logging.Formatter) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = SteadyFileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError:
        return False
    handler.setLevel(level)
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    return True
