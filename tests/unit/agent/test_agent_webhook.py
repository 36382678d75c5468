# SPDX-License-Identifier: GPL-3.0-or-later
"""What Meta gets for an answer, and what is stored for it."""

import io
from collections.abc import Iterable
from typing import Any

import pytest
from werkzeug.test import Client, EnvironBuilder, run_wsgi_app

from tests.unit.agent.agent_bodies import text_message, webhook
from whats_agent.app import create_flask
from whats_agent.errors import MessageLogError
from whats_agent.message_log import Kind, MessageLog
from whats_agent.metrics import Recorder
from whats_agent.settings import WebSettings, load
from whats_agent.webhook.acceptance import Acceptance, Refused, read_body
from whats_agent.webhook.signature import is_signed, same_token, sign

LIMIT = 4096


class Agent:
    """The whole web application over a log of this test, and what its observer heard."""

    def __init__(self, environment: dict[str, str]) -> None:
        settings = load(WebSettings)
        self.secret = environment["META_APP_SECRET"].encode()
        self.log = MessageLog(settings.message_log_dir)
        self.observed: list[int] = []
        application = Acceptance(
            create_flask(settings, Recorder(None)).wsgi_app,
            self.log,
            environment["META_APP_SECRET"],
            max_bytes=LIMIT,
            observe=lambda status, seconds: self.observed.append(status),
        )
        self.client = Client(application)

    def post(self, body: bytes, signature: str | None = "ours") -> tuple[int, str]:
        """Status and text for one delivery."""
        headers = {}
        if signature is not None:
            headers["X-Hub-Signature-256"] = sign(self.secret, body) if signature == "ours" else signature
        response = self.client.post("/webhook", data=body, headers=headers, environ_base={"REMOTE_ADDR": "203.0.113.7"})
        return response.status_code, response.text

    def stored(self) -> list[bytes]:
        """The bodies in the log."""
        return [record.body for record in self.log.read_after(0)]


@pytest.fixture
def agent(environment: dict[str, str]) -> Agent:
    return Agent(environment)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(webhook(text_message()), id="a message"),
        pytest.param(b"not json at all", id="no JSON"),
        pytest.param(b"\xff\xfe\x00", id="no UTF-8"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"[" * 4000, id="deep nesting"),
    ],
)
def test_signed_bodies_are_stored_byte_for_byte_and_acknowledged(agent: Agent, body: bytes) -> None:
    assert agent.post(body) == (200, "")
    assert agent.stored() == [body]
    assert agent.observed == [200]


@pytest.mark.parametrize(
    ("signature", "status"),
    [
        pytest.param(None, 401, id="none"),
        pytest.param("", 401, id="empty"),
        pytest.param("sha256=" + "0" * 64, 403, id="wrong"),
        pytest.param("sha1=da39a3ee5e6b4b0d3255bfef95601890afd80709", 403, id="SHA-1"),
        pytest.param("sha256=é", 403, id="not ASCII"),
        pytest.param(sign(b"as-d1b7f3a95c08e264", b"another body"), 403, id="of another body"),
        pytest.param(sign(b"as-d1b7f3a95c08e265", webhook(text_message())), 403, id="by another secret"),
        pytest.param(sign(b"as-d1b7f3a95c08e264", b"x").upper(), 403, id="upper case"),
    ],
)
def test_unsigned_bodies_are_refused_and_not_stored(
    agent: Agent, signature: str | None, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert agent.post(webhook(text_message()), signature)[0] == status
    assert agent.stored() == []
    assert "event=webhook_refused" in caplog.text
    assert "address=203.0.113.7" in caplog.text


def test_too_large_is_refused_unread(agent: Agent) -> None:
    assert agent.post(b"x" * (LIMIT + 1))[0] == 413
    assert agent.post(b"x" * LIMIT)[0] == 200


@pytest.mark.parametrize(
    ("body", "declared", "status"),
    [
        pytest.param(b"x" * 10, "11", 400, id="cut short"),
        pytest.param(b"x" * 10, "-1", 400, id="negative length"),
        pytest.param(b"x" * 10, "1e1", 400, id="no number"),
        pytest.param(b"x" * 10, "٣", 400, id="a digit of another script"),
        pytest.param(b"x" * 99, None, 413, id="chunked and too large"),
        pytest.param(b"", "99999999999999", 413, id="absurd length"),
    ],
)
def test_bodies_that_are_not_what_they_claim(body: bytes, declared: str | None, status: int) -> None:
    with pytest.raises(Refused) as refusal:
        read_body(io.BytesIO(body), declared, 50)
    assert refusal.value.status == status


def test_chunked_body_is_read_to_its_end() -> None:
    assert read_body(io.BytesIO(b"x" * 50), None, 50) == b"x" * 50


def test_disk_failure_asks_for_another_delivery(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(kind: Kind, body: bytes) -> int:
        raise MessageLogError("disk full")

    monkeypatch.setattr(agent.log, "append", refuse)
    body = webhook(text_message())
    response = agent.client.post("/webhook", data=body, headers={"X-Hub-Signature-256": sign(agent.secret, body)})
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "5"
    assert agent.observed == [503]


def test_handshake_echoes_the_bare_challenge(agent: Agent, environment: dict[str, str]) -> None:
    query = {
        "hub.mode": "subscribe",
        "hub.verify_token": environment["META_VERIFY_TOKEN"],
        "hub.challenge": "1158201444",
    }
    response = agent.client.get("/webhook", query_string=query)
    assert (response.status_code, response.text, response.mimetype) == (200, "1158201444", "text/plain")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        pytest.param({"hub.verify_token": "wrong"}, 403, id="wrong token"),
        pytest.param({"hub.verify_token": "señal"}, 403, id="token not ASCII"),
        pytest.param({"hub.verify_token": ""}, 403, id="no token"),
        pytest.param({"hub.mode": "unsubscribe"}, 400, id="another mode"),
        pytest.param({"hub.challenge": ""}, 400, id="no challenge"),
        pytest.param({"hub.challenge": "<script>"}, 400, id="markup as challenge"),
    ],
)
def test_handshake_refuses(agent: Agent, environment: dict[str, str], change: dict[str, str], status: int) -> None:
    query = {
        "hub.mode": "subscribe",
        "hub.verify_token": environment["META_VERIFY_TOKEN"],
        "hub.challenge": "1",
    } | change
    response = agent.client.get("/webhook", query_string=query)
    assert response.status_code == status
    assert change.get("hub.challenge") != response.text


@pytest.mark.parametrize(("method", "path"), [("PUT", "/webhook"), ("DELETE", "/webhook"), ("GET", "/nothing")])
def test_everything_else_is_flasks(agent: Agent, method: str, path: str) -> None:
    response = agent.client.open(path, method=method)
    assert response.status_code in (404, 405)
    assert response.is_json


def test_signature_is_over_the_raw_bytes() -> None:
    # The value openssl gives: printf '{"a":1}' | openssl dgst -sha256 -hmac secret
    assert sign(b"secret", b'{"a":1}') == "sha256=aa9e2e3575f5d7098b6caccd790888c36d5fdb63342a73bada2d6a51747a8494"
    assert is_signed(b"secret", b'{"a":1}', sign(b"secret", b'{"a":1}'))
    assert not is_signed(b"secret", b'{"a": 1}', sign(b"secret", b'{"a":1}'))
    assert same_token("token", "token")
    assert not same_token("token", "token ")


def test_an_interrupted_upload_is_not_stored(agent: Agent) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise ConnectionResetError

    headers = [("X-Hub-Signature-256", "sha256=x")]
    environ: dict[str, Any] = EnvironBuilder("/webhook", method="POST", headers=headers).get_environ()
    environ |= {"wsgi.input": Broken(), "CONTENT_LENGTH": "5"}
    result: tuple[Iterable[bytes], str, Any] = run_wsgi_app(agent.client.application, environ)
    assert result[1].startswith("400")
    assert agent.stored() == []
