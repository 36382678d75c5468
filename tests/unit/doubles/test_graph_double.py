# SPDX-License-Identifier: GPL-3.0-or-later
"""The Graph double answers as Meta does, remembers across kills and delivers signed statuses."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.doubles.conftest import Serve, ServedDouble

TOKEN = "graph-token"
SECRET = "app-secret"
PHONE = "106540352242922"
PATH = f"/v25.0/{PHONE}/messages"
WAIT_LIMIT_S = 15.0


class Webhook:
    """Records what is posted to it; ``status`` is what it answers."""

    def __init__(self) -> None:
        self.status = 200
        self.received: list[tuple[dict[str, str], bytes]] = []
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook.received.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(webhook.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/webhook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def statuses(self) -> list[dict[str, Any]]:
        return [json.loads(body)["entry"][0]["changes"][0]["value"]["statuses"][0] for _, body in list(self.received)]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_LIMIT_S} s: {what}"
        time.sleep(0.02)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    stand_in = Webhook()
    yield stand_in
    stand_in.close()


ENVIRONMENT = {"META_ACCESS_TOKEN": TOKEN, "META_APP_SECRET": SECRET, "PHONE_NUMBER_ID": PHONE}


@pytest.fixture
def graph(serve: Serve, webhook: Webhook, tmp_path: Path) -> Iterator[ServedDouble]:
    """A double of this test's own, that delivers statuses and may be killed."""
    double = serve("graph", {**ENVIRONMENT, "WEBHOOK_URL": webhook.url, "DOUBLE_STATE_DIR": str(tmp_path)})
    yield double
    double.kill()


@pytest.fixture(scope="module")
def shared(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> ServedDouble:
    return serve("graph", {**ENVIRONMENT, "DOUBLE_STATE_DIR": str(tmp_path_factory.mktemp("state"))})


@pytest.fixture
def quiet(shared: ServedDouble) -> ServedDouble:
    """A double as new that delivers no statuses; one process serves the whole module."""
    shared.http.post("/_double/reset").raise_for_status()
    return shared


def text(body: str = "Olá", **more: Any) -> dict[str, Any]:
    return {"messaging_product": "whatsapp", "to": "5511987654321", "type": "text", "text": {"body": body}, **more}


def post(graph: ServedDouble, body: Any, path: str = PATH, token: str | None = TOKEN) -> httpx.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return graph.http.post(path, json=body, headers=headers)


def sends(graph: ServedDouble) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = graph.http.get("/_double/sends").json()
    return found


def test_accepts_a_text_as_meta_does(quiet: ServedDouble) -> None:
    answer = post(quiet, text("Olá, João", biz_opaque_callback_data="outbox-1"))
    assert answer.status_code == 200
    wamid = answer.json()["messages"][0]["id"]
    assert wamid.startswith("wamid.")
    assert answer.json() == {
        "messaging_product": "whatsapp",
        "contacts": [{"input": "5511987654321", "wa_id": "5511987654321"}],
        "messages": [{"id": wamid}],
    }
    (send,) = sends(quiet)
    assert send["wamid"] == wamid
    assert send["text"] == "Olá, João"
    assert send["to"] == "5511987654321"
    assert send["biz_opaque_callback_data"] == "outbox-1"


def test_a_user_without_a_number_is_reached_by_recipient(graph: ServedDouble, webhook: Webhook) -> None:
    body = {"messaging_product": "whatsapp", "recipient": "BR.1349120865", "type": "text", "text": {"body": "Oi"}}
    assert post(graph, body).json()["contacts"] == [{"input": "BR.1349120865", "user_id": "BR.1349120865"}]
    eventually(lambda: len(webhook.received) == 3, "three statuses")
    assert {status["recipient_user_id"] for status in webhook.statuses()} == {"BR.1349120865"}


def test_reveals_a_send_that_arrives_twice(quiet: ServedDouble) -> None:
    first, second = (post(quiet, text(biz_opaque_callback_data="same")) for _ in range(2))
    assert first.json()["messages"] != second.json()["messages"]
    assert [send["biz_opaque_callback_data"] for send in sends(quiet)] == ["same", "same"]


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("rate_limit", 400, 130429),
        ("pair_rate_limit", 400, 131056),
        ("token_expired", 401, 190),
        ("server_error", 500, 131000),
        ("permission", 403, 10),
        ("account_blocked", 403, 368),
        ("not_allowed", 400, 131026),
        ("window_closed", 400, 131047),
    ],
)
def test_errors_on_order_then_accepts_again(quiet: ServedDouble, fault: str, status: int, code: int) -> None:
    assert quiet.http.post("/_double/fail", json={"class": fault, "count": 1}).json()["remaining"] == 1
    answer = post(quiet, text())
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["type"] == "OAuthException"
    assert error["fbtrace_id"]
    assert sends(quiet) == []
    assert post(quiet, text()).status_code == 200


def test_a_fault_without_count_lasts_until_switched_off(quiet: ServedDouble) -> None:
    quiet.http.post("/_double/fail", json={"class": "server_error"})
    assert [post(quiet, text()).status_code for _ in range(3)] == [500, 500, 500]
    quiet.http.post("/_double/fail", json={"class": "off"})
    assert post(quiet, text()).status_code == 200


@pytest.mark.parametrize("order", [{"class": "nonsense"}, {"class": "timeout", "count": 0}, ["timeout"], None])
def test_refuses_an_order_it_does_not_know(quiet: ServedDouble, order: Any) -> None:
    assert quiet.http.post("/_double/fail", json=order).status_code == 400


def test_drop_after_accept_records_and_hangs_up(graph: ServedDouble, webhook: Webhook) -> None:
    graph.http.post("/_double/fail", json={"class": "drop_after_accept", "count": 1})
    with pytest.raises(httpx.RemoteProtocolError):
        post(graph, text(biz_opaque_callback_data="fate-unknown"))
    assert [send["biz_opaque_callback_data"] for send in sends(graph)] == ["fate-unknown"]
    eventually(lambda: len(webhook.received) == 3, "the echo of the dropped send")


def test_timeout_neither_answers_nor_records(quiet: ServedDouble) -> None:
    quiet.http.post("/_double/fail", json={"class": "timeout", "count": 1})
    with pytest.raises(httpx.ReadTimeout):
        quiet.http.post(PATH, json=text(), headers={"Authorization": f"Bearer {TOKEN}"}, timeout=0.5)
    assert sends(quiet) == []


@pytest.mark.parametrize(
    ("body", "path", "token", "expected"),
    [
        pytest.param(text(), PATH, "wrong", (401, 190), id="wrong token"),
        pytest.param(text(), PATH, None, (401, 104), id="no token"),
        pytest.param(text(), f"/latest/{PHONE}/messages", TOKEN, (400, 2500), id="no version"),
        pytest.param(text(), "/v25.0/messages", TOKEN, (400, 2500), id="no phone number id"),
        pytest.param(text(), "/v25.0/999/messages", TOKEN, (400, 100), id="foreign phone number id"),
        pytest.param(["text"], PATH, TOKEN, (400, 100), id="no object"),
        pytest.param({**text(), "messaging_product": "sms"}, PATH, TOKEN, (400, 100), id="wrong product"),
        pytest.param({**text(), "to": ""}, PATH, TOKEN, (400, 100), id="no recipient"),
        pytest.param({**text(), "text": {}}, PATH, TOKEN, (400, 100), id="no body"),
        pytest.param(text("x" * 4097), PATH, TOKEN, (400, 100), id="text too long"),
        pytest.param(text(biz_opaque_callback_data="x" * 513), PATH, TOKEN, (400, 100), id="callback data too long"),
        pytest.param({**text(), "type": "fax"}, PATH, TOKEN, (400, 100), id="unknown type"),
    ],
)
def test_refuses_what_meta_refuses(
    quiet: ServedDouble, body: Any, path: str, token: str | None, expected: tuple[int, int]
) -> None:
    answer = post(quiet, body, path, token)
    assert (answer.status_code, answer.json()["error"]["code"]) == expected
    assert sends(quiet) == []


def test_a_read_mark_is_no_send(quiet: ServedDouble) -> None:
    mark = {
        "messaging_product": "whatsapp",
        "status": "read",
        "message_id": "wamid.X",
        "typing_indicator": {"type": "text"},
    }
    assert post(quiet, mark).json() == {"success": True}
    assert sends(quiet) == []
    (read,) = quiet.http.get("/_double/reads").json()
    assert (read["message_id"], read["typing"]) == ("wamid.X", True)


def test_a_read_mark_suffers_a_fault_and_leaves_it_for_the_send(quiet: ServedDouble) -> None:
    quiet.http.post("/_double/fail", json={"class": "server_error", "count": 1})
    mark = {"messaging_product": "whatsapp", "status": "read", "message_id": "wamid.X"}
    assert [post(quiet, mark).status_code, post(quiet, text()).status_code] == [500, 500]
    assert [post(quiet, mark).status_code, post(quiet, text()).status_code] == [200, 200]


def test_statuses_are_signed_and_carry_the_callback_data(graph: ServedDouble, webhook: Webhook) -> None:
    wamid = post(graph, text(biz_opaque_callback_data="outbox-7")).json()["messages"][0]["id"]
    eventually(lambda: len(webhook.received) == 3, "three statuses")
    for headers, body in webhook.received:
        expected = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        assert headers["x-hub-signature-256"] == expected
        value = json.loads(body)["entry"][0]["changes"][0]["value"]
        assert value["metadata"]["phone_number_id"] == PHONE
    statuses = webhook.statuses()
    assert [status["status"] for status in statuses] == ["sent", "delivered", "read"]
    assert {status["id"] for status in statuses} == {wamid}
    assert {status["biz_opaque_callback_data"] for status in statuses} == {"outbox-7"}
    assert {status["recipient_id"] for status in statuses} == {"5511987654321"}
    assert statuses[0]["pricing"]["pricing_model"] == "PMP"


def test_a_status_is_repeated_until_it_is_taken(graph: ServedDouble, webhook: Webhook) -> None:
    webhook.status = 503
    graph.http.post("/_double/statuses", json={"kinds": ["sent"]})
    post(graph, text())
    eventually(lambda: len(webhook.received) >= 2, "a second try")
    webhook.status = 200
    eventually(lambda: graph.http.get("/_double/health").json()["statuses"]["pending"] == 0, "delivery")


def test_statuses_switched_off_wait_even_across_a_kill(graph: ServedDouble, webhook: Webhook) -> None:
    graph.http.post("/_double/statuses", json={"enabled": False, "kinds": ["sent", "failed"]})
    wamid = post(graph, text()).json()["messages"][0]["id"]
    graph.kill()
    graph.start()
    assert [send["wamid"] for send in sends(graph)] == [wamid]
    assert graph.http.get("/_double/health").json()["statuses"] == {
        "enabled": False,
        "kinds": ["sent", "failed"],
        "pending": 2,
    }
    assert webhook.received == []
    graph.http.post("/_double/statuses", json={"enabled": True})
    eventually(lambda: len(webhook.received) == 2, "both statuses")
    assert webhook.statuses()[1]["errors"][0]["code"] == 131026


@pytest.mark.parametrize("wanted", [{"kinds": ["lost"]}, {"enabled": 1}, []])
def test_refuses_status_settings_it_does_not_know(quiet: ServedDouble, wanted: Any) -> None:
    assert quiet.http.post("/_double/statuses", json=wanted).status_code == 400


def test_a_killed_double_forgets_no_send(graph: ServedDouble) -> None:
    acknowledged = [post(graph, text(str(number))).json()["messages"][0]["id"] for number in range(50)]
    graph.kill()
    graph.start()
    assert [send["wamid"] for send in sends(graph)] == acknowledged


def test_reset_forgets_for_good(graph: ServedDouble) -> None:
    post(graph, text())
    graph.http.post("/_double/fail", json={"class": "server_error"})
    graph.http.post("/_double/reset")
    graph.kill()
    graph.start()
    assert sends(graph) == []
    assert post(graph, text()).status_code == 200
