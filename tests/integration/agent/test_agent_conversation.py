# SPDX-License-Identifier: GPL-3.0-or-later
"""What the model is shown, who answers, and what an operator may decide meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.agent.stack import Stack
from tests.integration.agent.traffic import Sent, Traffic, new_phone
from tests.integration.agent.waiting import eventually, never


def answers_to(stack: Stack, phone: str) -> list[str]:
    return [send["text"] for send in stack.sends() if send["to"] == phone]


def ask(stack: Stack, phone: str, text: str) -> Sent:
    """Send a message and wait for its answer."""
    before = len(answers_to(stack, phone))
    sent = Traffic(stack).send(phone, text)
    eventually(lambda: len(answers_to(stack, phone)) > before, f"the answer to {text}")
    return sent


def action_of(stack: Stack, sent: Sent) -> str | None:
    rows = stack.sql("select action from messages where wamid = %(wamid)s", {"wamid": sent.wamid})
    return str(rows[0]["action"]) if rows else None


def shown_for(stack: Stack, text: str) -> list[dict[str, Any]]:
    """The turns that OpenAI was shown with ``text`` as the last of them."""
    calls = stack.http("openai_double").get("/_double/calls").raise_for_status().json()
    turns: list[dict[str, Any]] = next(call["messages"] for call in reversed(calls) if call["text"] == text)
    return turns


def test_the_model_sees_the_prompt_and_the_last_turns_only_of_this_conversation(stack: Stack) -> None:
    phone, other = new_phone(), new_phone()
    ask(stack, other, "de outra pessoa")
    for number in range(1, 4):
        ask(stack, phone, f"pergunta {number}")
    turns = shown_for(stack, "pergunta 3")
    assert turns[0]["role"] == "system"
    assert "assistente virtual" in turns[0]["content"]
    told = [(turn["role"], turn["content"]) for turn in turns[1:]]
    assert [role for role, _ in told] == ["user", "assistant", "user", "assistant", "user"]
    assert [content for role, content in told if role == "user"] == ["pergunta 1", "pergunta 2", "pergunta 3"]
    assert all("pergunta" in content for role, content in told if role == "assistant")


def test_tokens_and_their_cost_are_counted(stack: Stack) -> None:
    def tokens() -> dict[str, Any]:
        counted: dict[str, Any] = stack.http("app").get("/production/metrics/business").json()["tokens"]
        return counted

    before = tokens()
    ask(stack, new_phone(), "quanto custa?")
    eventually(lambda: tokens()["prompt"] > before["prompt"], "the tokens to be counted", 15)
    after = tokens()
    assert after["completion"] > before["completion"]
    assert after["cost_usd"] > before["cost_usd"]


def test_a_person_takes_over_by_keyword_until_handed_back(stack: Stack) -> None:
    phone = new_phone()
    ask(stack, phone, "Quero falar com um ATENDENTE, por favor!")
    assert "pessoa da equipe" in answers_to(stack, phone)[-1]
    silent = Traffic(stack).send(phone, "alguém aí?")
    eventually(lambda: action_of(stack, silent) == "handed_over", "the message to be left to the person")
    never(lambda: len(answers_to(stack, phone)) > 1, "an answer beside the person's", seconds=2)
    stack.worker.run(["whats-agent", "handback", phone])
    ask(stack, phone, "e agora?")
    assert "e agora?" in answers_to(stack, phone)[-1]


@pytest.fixture
def switched_back(stack: Stack) -> Iterator[None]:
    yield
    stack.worker.run(["whats-agent", "answers", "on"])


@pytest.mark.usefixtures("switched_back")
def test_the_kill_switch_silences_and_nothing_is_made_up_for_afterwards(stack: Stack, traffic: Traffic) -> None:
    stack.worker.run(["whats-agent", "answers", "off"])
    muted = Traffic(stack).send(new_phone(), "está aí?")
    eventually(lambda: action_of(stack, muted) == "muted", "the message to be muted")
    stack.worker.run(["whats-agent", "answers", "on"])
    traffic.send(new_phone(), "de volta?")
    traffic.verify()
    assert answers_to(stack, muted.sender) == []


@pytest.fixture
def token_file(stack: Stack, tmp_path: Path) -> Iterator[Path]:
    """A worker whose access token lies in a file, as a mounted secret does; the one in it is not Meta's."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    for path in (tmp_path, folder):
        path.chmod(0o755)
    file = folder / "token"
    file.write_text("expired-9d41c07be5a2f386", encoding="utf-8")
    stack.session.discard(stack.worker)
    settings = {"META_ACCESS_TOKEN": "", "META_ACCESS_TOKEN_FILE": "/secrets/token"}
    stack.worker = stack.agent_service("worker", "worker", settings, binds={str(folder): "/secrets"})
    stack.worker.start()
    yield file
    stack.session.discard(stack.worker)
    stack.worker = stack.agent_service("worker", "worker")
    stack.worker.start()


def test_an_expired_token_stops_the_sender_until_the_secret_is_replaced(
    stack: Stack, traffic: Traffic, token_file: Path
) -> None:
    traffic.conversations(people=3, each=2)

    def stopped() -> object:
        return stack.http("app").get("/health").json()["parts"]["worker"].get("sender_stopped")

    assert "190" in str(eventually(stopped, "the sender to stop"))
    assert traffic.answered() == 0
    replacement = token_file.with_name("new")
    replacement.write_text(stack.access_token, encoding="utf-8")
    replacement.chmod(0o644)
    replacement.replace(token_file)
    traffic.verify()
    eventually(lambda: stopped() is None, "the sender to be well again")
