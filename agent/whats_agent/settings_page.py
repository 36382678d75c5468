# SPDX-License-Identifier: GPL-3.0-or-later
"""The operators' page of settings, written from the settings themselves.

``python -m whats_agent.settings_page > docs/agent_settings.md``
"""

import sys

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from whats_agent.settings import CommonSettings, DatabaseSettings, WebSettings, WorkerSettings

_HEAD = """# The agent's settings

Read once at the start by `agent/whats_agent/settings.py` from the environment (`.env` beside the compose file). A missing or
weak value stops the start with the variable's name; values are never printed. Every variable may instead be given as a file,
named by `<NAME>_FILE`; a replaced `META_ACCESS_TOKEN_FILE` takes effect at the next send. Secrets need at least 16 characters,
6 of them different.

This page is written by `python -m whats_agent.settings_page`; a test holds it against the code.

| variable | default | what it is |
|---|---|---|
"""
_GUNICORN = """| **app: gunicorn** | | |
| `WEB_WORKERS` | `2` | processes |
| `WEB_THREADS` | `16` | threads of each |
| `WEB_BIND` | `0.0.0.0:8000` | address inside the container |
"""
_SECTIONS: tuple[tuple[str, type[CommonSettings], type[CommonSettings] | None], ...] = (
    ("every process", CommonSettings, None),
    ("app, worker, migrate", DatabaseSettings, CommonSettings),
    ("app", WebSettings, DatabaseSettings),
    ("worker", WorkerSettings, DatabaseSettings),
)


def page() -> str:
    """The page as Markdown."""
    lines: list[str] = []
    for title, kind, base in _SECTIONS:
        lines.append(f"| **{title}** | | |")
        known = set(base.model_fields) if base is not None else set()
        lines += [_row(name, field) for name, field in kind.model_fields.items() if name not in known]
    return _HEAD + "\n".join(lines) + "\n" + _GUNICORN


def _row(name: str, field: FieldInfo) -> str:
    default = field.default
    if default is PydanticUndefined:
        shown = "**required**"
    elif default is None or default == "":
        shown = "–"
    else:
        text = (
            str(default).lower()
            if isinstance(default, bool)
            else f"{default:g}"
            if isinstance(default, float)
            else str(default)
        )
        shown = f"`{text}`"
    secret = "secret; " if "SecretStr" in str(field.annotation) else ""
    return f"| `{name.upper()}` | {shown} | {secret}{field.description} |"


if __name__ == "__main__":
    sys.stdout.write(page())
