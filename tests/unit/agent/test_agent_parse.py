# SPDX-License-Identifier: GPL-3.0-or-later
"""Webhook bodies into items: every type read right, every broken thing kept apart."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.unit.agent.agent_bodies import ENVIRONMENT, text_message, webhook
from whats_agent.whatsapp.items import AccountEvent, InboundMessage, Item, MessageEcho, StatusUpdate, UnreadableItem
from whats_agent.whatsapp.message_types import TABLE, UNKNOWN, action_for
from whats_agent.whatsapp.parse import parse

CASES: dict[str, Any] = json.loads(
    (Path(__file__).parent / "fixtures" / "message_types.json").read_text(encoding="utf-8")
)


def only(raw: bytes) -> Item:
    """The single item of a body."""
    items = parse(raw)
    assert len(items) == 1
    return items[0]


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
def test_each_message_type(case: dict[str, Any]) -> None:
    message = {"from": "5511988887777", "id": "wamid.X", "timestamp": "1764000000", **case["message"]}
    item = only(webhook(message))
    assert isinstance(item, InboundMessage)
    assert item.type == case["message"]["type"]
    assert item.text == case["text"]
    assert action_for(item.type, item.text, item.group_id) == case["action"]
    assert (item.wa_id, item.profile_name, item.wamid) == ("5511988887777", "Ana", "wamid.X")
    assert item.sent_at == datetime.fromtimestamp(1764000000, UTC)
    json.dumps(item.payload, ensure_ascii=False).encode()  # nothing that UTF-8 or jsonb would refuse


def test_every_row_of_the_table_has_a_case() -> None:
    assert set(TABLE) <= {case["message"]["type"] for case in CASES.values()}


def test_a_broken_message_does_not_spoil_its_batch() -> None:
    broken: list[Any] = [
        None,
        "text",
        7,
        [],
        {},
        {"from": "1", "type": "text"},
        {"id": "wamid.B", "timestamp": "1", "type": "text"},
        {"from": "1", "id": {"a": 1}, "type": "text"},
        {"from": "1", "id": "w" * 600, "type": "text"},
        {"from": "1", "id": "wamid.B", "type": 5.5},
    ]
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    broken.append({"from": "1", "id": "wamid.D", "type": "text", "text": {"body": "x", "deep": deep}})
    messages: list[Any] = []
    for number, one in enumerate(broken):
        messages += [one, text_message(f"bom {number}", f"wamid.G{number}")]
    items = parse(webhook(*messages))
    good = [item.text for item in items if isinstance(item, InboundMessage)]
    assert good == [f"bom {number}" for number in range(len(broken))]
    assert sum(isinstance(item, UnreadableItem) for item in items) == len(broken)
    assert len({item.item for item in items}) == len(items), "each item needs a name of its own"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"not json", id="no JSON"),
        pytest.param(b"[" * 200_000, id="nested beyond any parser"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"object":"whatsapp_business_account"}', id="no entries"),
        pytest.param(b'{"entry":{}}', id="entries are no list"),
        pytest.param(b'{"entry":["x"]}', id="an entry is no object"),
        pytest.param(b'{"entry":[{"id":"1","changes":null}]}', id="no changes"),
        pytest.param(b'{"entry":[{"id":"1","changes":[null]}]}', id="a change is no object"),
        pytest.param(b'{"entry":[{"id":"1","changes":[{"field":"messages","value":[]}]}]}', id="a value is no object"),
        pytest.param(b'{"entry":[{"id":"1","changes":[{"value":{}}]}]}', id="no field"),
        pytest.param(
            b'{"entry":[{"id":"1","changes":[{"field":"messages","value":{"messages":{}}}]}]}', id="messages no list"
        ),
    ],
)
def test_bodies_that_are_no_webhook_are_kept_as_one_unreadable_item(raw: bytes) -> None:
    item = only(raw)
    assert isinstance(item, UnreadableItem)
    assert item.reason
    assert len(item.raw) <= 100_000


def test_an_empty_list_of_entries_holds_nothing() -> None:
    assert parse(b'{"object":"whatsapp_business_account","entry":[]}') == []


def test_bytes_that_are_not_utf8_cost_only_themselves() -> None:
    raw = webhook(text_message("antes"), text_message("QUEBRA", "wamid.T2")).replace(b"QUEBRA", b"\xc3\x28")
    texts = [item.text for item in parse(raw) if isinstance(item, InboundMessage)]
    assert texts == ["antes", "\N{REPLACEMENT CHARACTER}("]


def test_numbers_that_postgresql_could_not_hold() -> None:
    raw = webhook(text_message()).replace(
        b'"text": {', b'"a": 1e999, "b": NaN, "c": -Infinity, "d": ' + b"9" * 5000 + b', "text": {'
    )
    item = only(raw)
    assert isinstance(item, InboundMessage)
    assert item.payload["a"] == "1e999"
    assert (item.payload["b"], item.payload["c"]) == ("NaN", "-Infinity")
    assert item.payload["d"] == "9" * 64


@pytest.mark.parametrize("timestamp", [None, "", "soon", "-1e9", "9" * 40, {"a": 1}])
def test_a_bad_timestamp_is_no_timestamp(timestamp: object) -> None:
    item = only(webhook(text_message(timestamp=timestamp)))
    assert isinstance(item, InboundMessage)
    assert item.sent_at is None


def test_users_without_a_number() -> None:
    message = text_message(from_user_id="BR.1122334455")
    del message["from"]
    item = only(webhook(message, contacts=[{"profile": {"name": "Bia"}, "user_id": "BR.1122334455"}]))
    assert isinstance(item, InboundMessage)
    assert (item.wa_id, item.user_id, item.profile_name) == (None, "BR.1122334455", "Bia")


def test_the_contact_tells_the_other_half_of_who_it_was() -> None:
    contacts = [
        {"wa_id": "1", "user_id": "BR.9"},
        {"profile": {"name": "Ana"}, "wa_id": "5511988887777", "user_id": "BR.7"},
    ]
    item = only(webhook(text_message(), contacts=contacts))
    assert isinstance(item, InboundMessage)
    assert (item.wa_id, item.user_id) == ("5511988887777", "BR.7")


@pytest.mark.parametrize(
    "contacts", [None, {}, "x", [None], [{"wa_id": 5}], [{"wa_id": "5511988887777", "profile": "x"}]]
)
def test_broken_contacts_cost_only_the_name(contacts: object) -> None:
    item = only(webhook(text_message(), contacts=contacts))
    assert isinstance(item, InboundMessage)
    assert (item.wa_id, item.profile_name) == ("5511988887777", None)


STATUS: dict[str, Any] = {
    "id": "wamid.OURS",
    "status": "delivered",
    "timestamp": "1764000000",
    "recipient_id": "5511988887777",
    "biz_opaque_callback_data": "9e4b1c1e-0f2f-5f3a-9a53-111111111111",
}


def status_body(**changes: Any) -> bytes:
    """A body with one status and no message."""
    value = {"metadata": {"phone_number_id": ENVIRONMENT["PHONE_NUMBER_ID"]}, "statuses": [STATUS | changes]}
    return json.dumps({"entry": [{"id": "1", "changes": [{"field": "messages", "value": value}]}]}).encode()


@pytest.mark.parametrize("name", ["sent", "delivered", "read", "played", "failed", "some_future_status"])
def test_each_status(name: str) -> None:
    item = only(status_body(status=name))
    assert isinstance(item, StatusUpdate)
    assert (item.status, item.callback_data) == (name, STATUS["biz_opaque_callback_data"])
    assert item.error_codes == ()


def test_failed_status_gives_its_codes_and_both_pricing_models_are_kept() -> None:
    for pricing in (
        {"billable": True, "pricing_model": "CBP", "category": "service"},
        {"billable": False, "pricing_model": "PMP", "type": "free_customer_service", "category": "service"},
    ):
        item = only(
            status_body(status="failed", pricing=pricing, errors=[{"code": 131026, "title": "x"}, "?", {"code": "x"}])
        )
        assert isinstance(item, StatusUpdate)
        assert item.error_codes == (131026,)
        assert item.payload["pricing"] == pricing


def test_value_errors_and_account_fields_and_probes_are_account_events() -> None:
    errors = [{"code": 130429, "title": "Rate limit hit"}]
    body = {
        "entry": [
            {
                "id": "9",
                "changes": [{"field": "messages", "value": {"metadata": {"phone_number_id": "5"}, "errors": errors}}],
            },
            {
                "id": "9",
                "changes": [
                    {"field": "phone_number_quality_update", "value": {"event": "FLAGGED", "current_limit": "TIER_10K"}}
                ],
            },
            {
                "id": "9",
                "changes": [
                    {"field": "calls", "value": {"calls": []}},
                    {"field": "group_lifecycle_update", "value": {"groups": []}},
                ],
            },
            {"id": "probe", "changes": [{"field": "whats_agent_probe", "value": {"probe_id": "p1"}}]},
        ]
    }
    items = parse(json.dumps(body).encode())
    assert all(isinstance(item, AccountEvent) for item in items)
    events = [item for item in items if isinstance(item, AccountEvent)]
    assert [event.field for event in events] == [
        "messages.errors",
        "phone_number_quality_update",
        "calls",
        "group_lifecycle_update",
        "whats_agent_probe",
    ]
    assert events[0].value["errors"] == errors
    assert events[-1].value == {"probe_id": "p1"}


def test_messages_statuses_and_errors_of_one_value_all_come_out() -> None:
    items = parse(webhook(text_message(), statuses=[STATUS], errors=[{"code": 1}]))
    assert [type(item) for item in items] == [InboundMessage, StatusUpdate, AccountEvent]


def test_echo_of_the_business_app() -> None:
    echo = {
        "from": "551130000000",
        "to": "5511988887777",
        "id": "wamid.E",
        "timestamp": "1764000000",
        "type": "text",
        "text": {"body": "Já vou"},
    }
    value = {"metadata": {"phone_number_id": "5"}, "message_echoes": [echo, {"id": "wamid.F", "type": "text"}]}
    items = parse(
        json.dumps({"entry": [{"id": "1", "changes": [{"field": "smb_message_echoes", "value": value}]}]}).encode()
    )
    assert isinstance(items[0], MessageEcho)
    assert (items[0].wa_id, items[0].text) == ("5511988887777", "Já vou")
    assert isinstance(items[1], UnreadableItem)


def test_a_batch_of_a_thousand_keeps_its_order() -> None:
    items = parse(webhook(*(text_message(f"{number}", f"wamid.{number}") for number in range(1000))))
    assert [item.text for item in items if isinstance(item, InboundMessage)] == [f"{number}" for number in range(1000)]


def test_the_operators_page_says_what_the_table_does() -> None:
    page = (Path(__file__).parents[3] / "docs" / "message_types.md").read_text(encoding="utf-8")
    words = {
        "answer": "answered with OpenAI",
        "polite": "answered with a fixed sentence",
        "store": "stored only",
        "alert": "stored, operators are told",
    }
    rows = [f"| `{name}` | {words[row.action]} | {row.note} |" for name, row in TABLE.items()]
    assert "\n".join([*rows, f"| any other | {words[UNKNOWN.action]} | {UNKNOWN.note} |"]) in page
