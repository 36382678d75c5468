# SPDX-License-Identifier: GPL-3.0-or-later
"""Outbox ids and the records of each send; the SQL is tested against a real PostgreSQL in tests/integration."""

import uuid

import pytest

from whats_agent.errors import UnreadableItemError
from whats_agent.outbox.records import Outcome, SendAttempt, SendResult, outbox_id, read_attempt, read_result


def test_the_id_is_the_same_whenever_the_log_is_replayed() -> None:
    assert outbox_id("555", "wamid.A") == uuid.UUID("b246a010-269e-5a8d-9394-fdf908afcf9a")
    assert len({outbox_id("555", "wamid.A"), outbox_id("555", "wamid.B"), outbox_id("556", "wamid.A")}) == 3


def test_records_survive_the_log() -> None:
    attempt = SendAttempt(uuid.uuid4(), 3, "Olá ‘você’ \N{GRINNING FACE}", "openai")
    assert read_attempt(attempt.to_bytes()) == attempt
    for outcome in Outcome:
        result = SendResult(attempt.outbox_id, 3, outcome, "wamid.X", 131026, "why", 2.5)
        assert read_result(result.to_bytes()) == result


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"outbox_id":"x"}', b"\xff", b'{"outbox_id":5,"attempt":1}'])
def test_what_is_no_record_is_refused(raw: bytes) -> None:
    with pytest.raises(UnreadableItemError):
        read_attempt(raw)
    with pytest.raises(UnreadableItemError):
        read_result(raw)
