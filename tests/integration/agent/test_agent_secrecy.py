# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing that was secret or personal in the session's traffic is in any log, on disk or on standard error."""

from __future__ import annotations

import re

from tests.integration.agent.stack import LOGS, Stack
from tests.integration.agent.traffic import Traffic, encode, new_phone, signed_headers, text_message, webhook

_PRINT_ALL = f"""
import pathlib
for path in sorted(pathlib.Path({LOGS!r}).rglob("*")):
    if path.is_file():
        print(path.read_text(errors="replace"))
"""


def everything_logged(stack: Stack) -> str:
    parts = [stack.session.services[name].logs(lines=100_000) for name in ("app", "worker")]
    parts += [stack.session.services[name].run(["python3", "-c", _PRINT_ALL]) for name in ("app", "worker")]
    return "\n".join(parts)


def test_no_secret_and_no_phone_number_is_logged(stack: Stack, traffic: Traffic) -> None:
    stack.fail("graph_double", "token_expired", count=1)
    stack.fail("openai_double", "bad_key", count=1)
    sent = [traffic.send(new_phone()) for _ in range(2)]
    traffic.verify(texts=False)
    refused = encode(webhook([text_message(new_phone(), "assinado por outro")]))
    answer = stack.http("app").post("/webhook", content=refused, headers=signed_headers("someone else's", refused))
    assert answer.status_code == 403
    wrong = {"hub.mode": "subscribe", "hub.verify_token": "wrong-" + stack.verify_token, "hub.challenge": "1"}
    assert stack.http("app").get("/webhook", params=wrong).status_code == 403

    logged = everything_logged(stack)
    assert "event=webhook_refused" in logged
    assert "event=send" in logged
    leaked = [name for name, secret in stack.secrets().items() if secret in logged]
    assert leaked == [], f"logged: {', '.join(leaked)}"
    assert re.findall(r"\b5511\d{8,9}\b", logged) == []
    assert [message.text for message in sent if message.text in logged] == []
