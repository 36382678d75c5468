# SPDX-License-Identifier: GPL-3.0-or-later
"""`.env` is judged by name, and two of them are compared without showing a secret."""

from __future__ import annotations

import pytest
from ansible.module_utils.whats_agent import config_env

from whats_agent.settings import MIN_DISTINCT_CHARACTERS, MIN_SECRET_LENGTH

SECRET = "c0rrect-H0rse-battery-staple"
SOUND = f"""# comment
RELEASE=b46a0558259f
DB_VOLUME=whats_agent_pgdata_20261124T164500Z
DB_HOST=postgres
DB_PORT=5432
DB_NAME=whats_agent
DB_USER=whats_agent
DB_PASSWORD={SECRET}1
REDIS_URL=redis://redis:6379/0
REDIS_PASSWORD={SECRET}2
META_VERIFY_TOKEN={SECRET}3
META_APP_SECRET={SECRET}4
META_ACCESS_TOKEN={SECRET}5
PHONE_NUMBER_ID=106540352242922
GRAPH_BASE_URL=https://graph.facebook.com
GRAPH_VERSION=v26.0
OPENAI_API_KEY={SECRET}6
OPENAI_BASE_URL=https://api.openai.com/v1
OPENAI_MODEL=gpt-4o-mini
LOG_LEVEL=INFO
SYSTEM_PROMPT=Você é o assistente
"""
COMPOSE = "environment:\n  SYSTEM_PROMPT: ${SYSTEM_PROMPT}\n  DB_HOST: ${DB_HOST:?}\n  price: $${NOT_A_REFERENCE}\n"


def test_a_sound_file_has_no_problem() -> None:
    assert config_env.problems(SOUND, COMPOSE) == []


def test_what_compose_asks_for_is_required() -> None:
    assert config_env.references(COMPOSE) == ["DB_HOST", "SYSTEM_PROMPT"]
    without = SOUND.replace("SYSTEM_PROMPT=Você é o assistente\n", "")
    assert config_env.problems(without, COMPOSE) == ["SYSTEM_PROMPT is missing"]
    assert config_env.problems(SOUND.replace("Você é o assistente", ""), COMPOSE) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("DB_PORT=5432", "DB_PORT=none", "DB_PORT is not a port"),
        ("LOG_LEVEL=INFO", "LOG_LEVEL=loud", "LOG_LEVEL is not one of DEBUG INFO WARNING ERROR CRITICAL"),
        ("PHONE_NUMBER_ID=106540352242922", "PHONE_NUMBER_ID=", "PHONE_NUMBER_ID is empty"),
        (f"{SECRET}4", "short", "META_APP_SECRET is too short (at least 16 characters)"),
        (f"{SECRET}4", "aaaaaaaaaaaaaaaaaaaaaaaa", "META_APP_SECRET repeats too few characters to be a secret"),
        (f"{SECRET}4", "changeme-0123456789abcdef", "META_APP_SECRET is still a placeholder"),
        (f"{SECRET}4", "'quoted-0123456789abcdef'", "META_APP_SECRET has characters that .env cannot hold"),
        ("LOG_LEVEL=INFO", "LOG_LEVEL=INFO\nthis is no line", "line 21 is not NAME=value"),
        ("LOG_LEVEL=INFO", "LOG_LEVEL=INFO\nDB_HOST=other", "line 21 sets DB_HOST a second time"),
    ],
)
def test_each_problem_is_named_by_variable_or_line(old: str, new: str, said: str) -> None:
    assert old in SOUND
    assert config_env.problems(SOUND.replace(old, new), COMPOSE) == [said]


def test_the_agent_judges_secrets_the_same_way() -> None:
    assert config_env.weakness("a" * (MIN_SECRET_LENGTH - 1)) == "is too short (at least 16 characters)"
    few = "".join(chr(ord("a") + index % (MIN_DISTINCT_CHARACTERS - 1)) for index in range(MIN_SECRET_LENGTH))
    assert config_env.weakness(few) == "repeats too few characters to be a secret"
    enough = "".join(chr(ord("a") + index % MIN_DISTINCT_CHARACTERS) for index in range(MIN_SECRET_LENGTH))
    assert config_env.weakness(enough) is None


def test_a_difference_shows_what_is_no_secret_only() -> None:
    changed = (
        SOUND.replace("LOG_LEVEL=INFO", "LOG_LEVEL=DEBUG")
        .replace(f"{SECRET}4", f"{SECRET}9")
        .replace("SYSTEM_PROMPT=Você é o assistente", "SYSTEM_PROMPT=outro texto")
        .replace(f"OPENAI_API_KEY={SECRET}6\n", "")
        .replace("DB_HOST=postgres", f"DB_HOST={SECRET}1")
    )
    said = config_env.difference(SOUND, changed)
    assert said == [
        "DB_HOST: postgres → [redacted]",
        "LOG_LEVEL: INFO → DEBUG",
        "META_APP_SECRET changed",
        "OPENAI_API_KEY was removed",
        "SYSTEM_PROMPT changed",
    ]
    assert SECRET not in " ".join(said)


def test_a_difference_of_another_file_hides_known_secrets_and_is_cut() -> None:
    new = "".join(f"line {number} {SECRET}1\n" for number in range(20))
    said = config_env.text_difference("", new, config_env.known_secrets(SOUND), limit=3)
    assert said == ["+line 0 [redacted]", "+line 1 [redacted]", "+line 2 [redacted]", "… and 17 more lines"]


def test_the_volume_is_no_difference() -> None:
    other = SOUND.replace("20261124T164500Z", "20261124T170000Z_restored")
    assert config_env.same_but_volume(SOUND, other)
    assert not config_env.same_but_volume(SOUND, other.replace("INFO", "DEBUG"))
    assert config_env.with_values(other, {"DB_VOLUME": "whats_agent_pgdata_20261124T164500Z"}) == SOUND
