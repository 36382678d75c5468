# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets are hidden by field name, by shape and by value; what tells state stays."""

from __future__ import annotations

import pytest
from ansible.module_utils.whats_agent.redact import HIDDEN, is_secret_name, redact, redact_text, secrets_of


@pytest.mark.parametrize(
    "name",
    [
        "password", "DB_PASSWORD", "META_APP_SECRET", "META_VERIFY_TOKEN", "OPENAI_API_KEY", "repo1-cipher-pass",
        "privateKey", "apiKey", "Authorization", "X-Hub-Signature-256", "set-cookie", "wa_id", "phone", "accessToken",
        "redis.passwd", "credentials",
    ],
)  # fmt: skip
def test_secret_names(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "phone_number_id",
        "PHONE_NUMBER_ID",
        "compass",
        "passed",
        "keys",
        "tokenizer",
        "secretary",
        "cause",
        "confirm",
        "key",
    ],
)
def test_plain_names(name: str) -> None:
    assert not is_secret_name(name)


def test_values_under_a_secret_name_are_hidden_however_deep() -> None:
    value = {"db": {"password": "hunter2", "port": 5432}, "tokens": [{"a": "x1"}, "y2"], "token_expired": True}
    assert redact(value) == {
        "db": {"password": HIDDEN, "port": 5432},
        "tokens": [{"a": HIDDEN}, HIDDEN],
        "token_expired": True,
    }


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("postgresql://app:s3cr3t-x@db/whats", "s3cr3t-x"),
        ("redis://:hunter22@redis:6379/0", "hunter22"),
        ("Authorization: Bearer abcdefgh12345678", "abcdefgh12345678"),
        ("META_APP_SECRET=0123abcd rest", "0123abcd"),
        ('{"password": "pa55word"}', "pa55word"),
        ("--repo1-cipher-pass=abc123 x", "abc123"),
        ("key sk-proj-AAAABBBBCCCCDDDD1111 leaked", "sk-proj-AAAABBBBCCCCDDDD1111"),
        ("EAAGm0PX4ZCpsBAAAAAAAAAAAAA", "EAAGm0PX4ZCpsBAAAAAAAAAAAAA"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "MIIE"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEcut", "MIIEcut"),
    ],
)
def test_secrets_in_free_text_are_hidden_by_shape(text: str, secret: str) -> None:
    hidden = redact_text(text)
    assert secret not in hidden
    assert HIDDEN in hidden


def test_known_values_are_hidden_wherever_they_turn_up() -> None:
    assert redact({"note": ["it was Xq9-long-value!"]}, ["Xq9-long-value"]) == {"note": [f"it was {HIDDEN}!"]}
    assert redact({"Xq9-long-value": 1}, ["Xq9-long-value"]) == {HIDDEN: 1}


def test_short_known_values_do_not_blot_out_words() -> None:
    assert redact_text("the app is up", ["app"]) == "the app is up"


def test_plain_text_stays() -> None:
    text = "the WAL archive lacks segment 000000010000000000000003; passed 3 checks; token expired"
    assert redact_text(text) == text


def test_what_of_an_env_file_is_secret() -> None:
    env = {
        "DB_HOST": "postgres",
        "DB_PASSWORD": "one-secret",
        "REDIS_URL": "redis://:two-secret@redis/0",
        "PHONE_NUMBER_ID": "123456",
        "META_APP_SECRET": "",
    }
    assert secrets_of(env) == ["one-secret", "two-secret"]
