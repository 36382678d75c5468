# SPDX-License-Identifier: GPL-3.0-or-later
"""What an answer of the Graph API means, for each class of errors and for calls that broke off."""

import json
import uuid
from typing import Any

import httpx
import pytest

from whats_agent.graph.client import GraphClient, text_message
from whats_agent.graph.outcome import GraphAnswer, delay_for, read_answer
from whats_agent.outbox.records import Outcome


def error(code: int, **more: Any) -> dict[str, Any]:
    """A Graph API error."""
    return {"error": {"message": f"(#{code})", "type": "OAuthException", "code": code, "fbtrace_id": "x", **more}}


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        pytest.param(200, {"messages": [{"id": "wamid.1"}]}, Outcome.SENT, id="accepted"),
        pytest.param(200, {"messages": []}, Outcome.UNKNOWN, id="accepted without an id"),
        pytest.param(200, None, Outcome.UNKNOWN, id="accepted and cut off"),
        pytest.param(429, error(130429), Outcome.RETRY, id="rate limit"),
        pytest.param(400, error(131056), Outcome.RETRY, id="pair rate limit"),
        pytest.param(400, error(80007), Outcome.RETRY, id="account's rate limit"),
        pytest.param(500, error(131000), Outcome.RETRY, id="something went wrong"),
        pytest.param(503, error(999999), Outcome.RETRY, id="unknown code with 503"),
        pytest.param(429, None, Outcome.RETRY, id="bare 429"),
        pytest.param(502, None, Outcome.UNKNOWN, id="a gateway's page"),
        pytest.param(401, error(190, error_subcode=463), Outcome.STOPPED, id="token expired"),
        pytest.param(403, error(10), Outcome.STOPPED, id="permission"),
        pytest.param(403, error(200), Outcome.STOPPED, id="permission of the 200s"),
        pytest.param(400, error(368), Outcome.STOPPED, id="blocked for policy"),
        pytest.param(403, error(131031), Outcome.STOPPED, id="account locked"),
        pytest.param(400, error(100, error_subcode=33), Outcome.STOPPED, id="wrong phone number id"),
        pytest.param(401, None, Outcome.STOPPED, id="bare 401"),
        pytest.param(400, error(131026), Outcome.FAILED, id="undeliverable"),
        pytest.param(400, error(131047), Outcome.FAILED, id="window closed"),
        pytest.param(400, error(100), Outcome.FAILED, id="bad parameter"),
        pytest.param(400, error(987654), Outcome.FAILED, id="unknown code with 400"),
        pytest.param(404, None, Outcome.FAILED, id="bare 404"),
        pytest.param(400, {"error": {"code": "x"}}, Outcome.FAILED, id="an error of another shape"),
    ],
)
def test_meaning_of_each_answer(status: int, body: Any, outcome: Outcome) -> None:
    assert read_answer(status, body, None).outcome is outcome


def test_delays_grow_and_respect_what_meta_asks() -> None:
    limit, pair = GraphAnswer(Outcome.RETRY, error_code=130429), GraphAnswer(Outcome.RETRY, error_code=131056)
    assert [delay_for(limit, attempt) for attempt in (1, 2, 3, 20)] == [2, 4, 8, 300]
    assert [delay_for(pair, attempt) for attempt in (1, 2, 3, 20)] == [4, 16, 64, 300]
    asked = read_answer(429, None, "90")
    assert delay_for(asked, 1) == 90
    assert read_answer(429, None, "Wed, 21 Oct").retry_after is None


def client(handler: Any) -> GraphClient:
    """A client whose network is ``handler``."""
    graph = GraphClient("https://graph.example", "v26.0", lambda: "token-of-this-test", 5.0)
    graph._http = httpx.Client(transport=httpx.MockTransport(handler))
    return graph


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (httpx.ConnectError("refused"), Outcome.RETRY),
        (httpx.ConnectTimeout("slow"), Outcome.RETRY),
        (httpx.PoolTimeout("busy"), Outcome.RETRY),
        (httpx.ReadTimeout("silent"), Outcome.UNKNOWN),
        (httpx.WriteError("broken pipe"), Outcome.UNKNOWN),
        (httpx.RemoteProtocolError("cut"), Outcome.UNKNOWN),
    ],
)
def test_a_call_that_breaks_off_is_unknown_only_when_it_may_have_arrived(failure: Exception, outcome: Outcome) -> None:
    def handler(_request: httpx.Request) -> httpx.Response:
        raise failure

    assert client(handler).send_text("1", "5511988887777", None, "Oi", uuid.uuid4()).outcome is outcome


def test_the_request_is_what_meta_expects() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"messages": [{"id": "wamid.1"}]})

    callback = uuid.uuid4()
    answer = client(handler).send_text("555", "5511988887777", "BR.1", "Olá", callback)
    assert (answer.outcome, answer.wamid) == (Outcome.SENT, "wamid.1")
    assert str(seen[0].url) == "https://graph.example/v26.0/555/messages"
    assert seen[0].headers["Authorization"] == "Bearer token-of-this-test"
    body = json.loads(seen[0].content)
    assert (body["to"], body["text"]["body"], body["biz_opaque_callback_data"]) == (
        "5511988887777",
        "Olá",
        str(callback),
    )


def test_users_without_a_number_are_addressed_by_recipient_and_texts_are_cut() -> None:
    body = text_message(None, "BR.1", "x" * 5000, uuid.uuid4())
    assert "to" not in body
    assert body["recipient"] == "BR.1"
    assert len(body["text"]["body"]) == 4096


def test_a_retired_version_is_noticed_by_what_meta_answers_with(caplog: pytest.LogCaptureFixture) -> None:
    def handler(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"messages": [{"id": "w"}]}, headers={"facebook-api-version": "v27.0"})

    graph = client(handler)
    for _ in range(3):
        graph.send_text("555", "5511988887777", None, "Oi", uuid.uuid4())
    assert graph.served_version == "v27.0"
    assert caplog.text.count("event=graph_version_retired") == 1


def test_read_marks_are_best_effort() -> None:
    bodies: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        if len(bodies) == 2:
            raise httpx.ReadTimeout("silent")
        return httpx.Response(200 if len(bodies) == 1 else 400, json={})

    graph = client(handler)
    assert graph.mark_read("555", "wamid.IN", typing=True)
    assert not graph.mark_read("555", "wamid.IN", typing=False)
    assert not graph.mark_read("555", "wamid.IN", typing=False)
    assert bodies[0] == {
        "messaging_product": "whatsapp",
        "status": "read",
        "message_id": "wamid.IN",
        "typing_indicator": {"type": "text"},
    }
    assert "typing_indicator" not in bodies[1]
