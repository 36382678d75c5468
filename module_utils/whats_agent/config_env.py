# SPDX-License-Identifier: GPL-3.0-or-later
"""What a sound `.env` looks like, and how two of them differ, said without a single secret."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from .redact import is_secret_name, redact_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

VOLUME = "DB_VOLUME"
RELEASE = "RELEASE"
SECRETS = (
    "DB_PASSWORD",
    "REDIS_PASSWORD",
    "META_VERIFY_TOKEN",
    "META_APP_SECRET",
    "META_ACCESS_TOKEN",
    "OPENAI_API_KEY",
)
# As the agent judges its settings (agent/whats_agent/settings.py), and nothing that .env would have to quote.
_SECRET_TEXT = re.compile(r"[A-Za-z0-9_.~+/=:@%,-]{16,}")
_PLACEHOLDER = re.compile(r"change.?me|password|secret|example|placeholder|your[_-]|xxxx", re.IGNORECASE)
_MIN_DISTINCT = 6
_URL = (re.compile(r"https?://\S+"), "an http(s) address")
_RULES: dict[str, tuple[re.Pattern[str], str]] = {
    RELEASE: (re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"), "an image's tag"),
    VOLUME: (re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+"), "a volume's name"),
    "DB_HOST": (re.compile(r"[A-Za-z0-9._-]+"), "a host's name"),
    "DB_PORT": (re.compile(r"[1-9][0-9]{0,4}"), "a port"),
    "DB_NAME": (re.compile(r"[A-Za-z_][A-Za-z0-9_]*"), "a database's name"),
    "DB_USER": (re.compile(r"[A-Za-z_][A-Za-z0-9_]*"), "a role's name"),
    "REDIS_URL": (re.compile(r"rediss?://\S+"), "a redis address"),
    "PHONE_NUMBER_ID": (re.compile(r"[0-9]{5,20}"), "5 to 20 digits"),
    "GRAPH_BASE_URL": _URL,
    "GRAPH_VERSION": (re.compile(r"v[0-9]{1,3}\.[0-9]"), "a version like v26.0"),
    "OPENAI_BASE_URL": _URL,
    "OPENAI_MODEL": (re.compile(r"\S+"), "a model's name"),
    "LOG_LEVEL": (re.compile(r"DEBUG|INFO|WARNING|ERROR|CRITICAL"), "one of DEBUG INFO WARNING ERROR CRITICAL"),
}
REQUIRED = (*_RULES, *SECRETS)
# The only values that are ever shown; all others are "changed" at most.
_SHOWN = frozenset(_RULES)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE = re.compile(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]*)")


def read_leniently(text: str) -> tuple[dict[str, str], list[str]]:
    """Return what can be read of an env file, and what is wrong with its lines: by number, never by content."""
    values: dict[str, str] = {}
    problems = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        name, separator, value = line.partition("=")
        if not separator or not _NAME.fullmatch(name):
            problems.append(f"line {number} is not NAME=value")
        elif name in values:
            problems.append(f"line {number} sets {name} a second time")
        else:
            values[name] = value
    return values, problems


def references(compose_text: str) -> list[str]:
    """Return the variables that a compose file takes from `.env`."""
    return sorted(set(_REFERENCE.findall(compose_text)))


def weakness(secret: str) -> str | None:
    """Return why nobody can have meant a value as a secret, or None."""
    if not _SECRET_TEXT.fullmatch(secret):
        short = len(secret) < 16
        return "is too short (at least 16 characters)" if short else "has characters that .env cannot hold"
    if len(set(secret)) < _MIN_DISTINCT:
        return "repeats too few characters to be a secret"
    if _PLACEHOLDER.match(secret):
        return "is still a placeholder"
    return None


def problems(text: str, compose_text: str) -> list[str]:
    """Return what is wrong with an env file, one sentence each, naming variables and never values."""
    values, found = read_leniently(text)
    for name in sorted({*REQUIRED, *references(compose_text)}):
        value = values.get(name)
        if value is None:
            found.append(f"{name} is missing")
        elif not value and name in REQUIRED:
            found.append(f"{name} is empty")
        elif name in SECRETS:
            why = weakness(value)
            if why:
                found.append(f"{name} {why}")
        elif name in _RULES and not _RULES[name][0].fullmatch(value):
            found.append(f"{name} is not {_RULES[name][1]}")
    return found


def known_secrets(*texts: str) -> list[str]:
    """Return the values in env files that must not appear anywhere."""
    return [
        value
        for text in texts
        for name, value in read_leniently(text)[0].items()
        if value and (is_secret_name(name) or name not in _SHOWN)
    ]


def difference(old: str, new: str) -> list[str]:
    """Return how an env file changed, by variable; secrets and free text only as changed."""
    before, after = read_leniently(old)[0], read_leniently(new)[0]
    hidden = known_secrets(old, new)
    found = []
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if was == now:
            continue
        if now is None or was is None:
            found.append(f"{name} was {'removed' if now is None else 'added'}")
        elif name in _SHOWN:
            found.append(f"{name}: {redact_text(was, hidden)} → {redact_text(now, hidden)}")
        else:
            found.append(f"{name} changed")
    return found


def text_difference(old: str, new: str, hidden: Iterable[str], limit: int = 12) -> list[str]:
    """Return the changed lines of another file, known secrets hidden."""
    lines = [
        line
        for line in difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=0)
        if not line.startswith(("---", "+++", "@@"))
    ]
    known = tuple(hidden)
    masked = [redact_text(line, known)[:200] for line in lines[:limit]]
    return [*masked, f"… and {len(lines) - limit} more lines"] if len(lines) > limit else masked


def same_but_volume(one: str, other: str) -> bool:
    """Tell whether two env files say the same, DB_VOLUME aside: that one is state, which a restore changes."""
    return _without_volume(one) == _without_volume(other)


def _without_volume(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith(f"{VOLUME}=")]


def with_values(text: str, changes: Mapping[str, str]) -> str:
    """Return the text with variables set in place."""
    lines = []
    for line in text.splitlines():
        name = line.partition("=")[0]
        lines.append(f"{name}={changes[name]}" if name in changes else line)
    return "\n".join(lines) + "\n"
