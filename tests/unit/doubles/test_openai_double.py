# SPDX-License-Identifier: GPL-3.0-or-later
"""The OpenAI double, seen through the ``openai`` package over loopback."""

from __future__ import annotations

import openai
import pytest

from tests.unit.doubles.conftest import Serve, ServedDouble

KEY = "sk-double"


@pytest.fixture(scope="module")
def served(serve: Serve) -> ServedDouble:
    return serve("openai", {"OPENAI_API_KEY": KEY})


@pytest.fixture
def double(served: ServedDouble) -> ServedDouble:
    served.http.post("/_double/reset").raise_for_status()
    return served


def client(double: ServedDouble, key: str = KEY, retries: int = 0, timeout: float = 10.0) -> openai.OpenAI:
    return openai.OpenAI(api_key=key, base_url=f"{double.url}/v1", max_retries=retries, timeout=timeout)


def ask(api: openai.OpenAI, text: str = "Qual o preço?") -> openai.types.chat.ChatCompletion:
    return api.chat.completions.create(
        model="gpt-4o-mini",
        messages=[
            {"role": "system", "content": "Responda em português."},
            {"role": "user", "content": "antes"},
            {"role": "assistant", "content": "sim"},
            {"role": "user", "content": text},
        ],
    )


def test_answers_with_the_users_last_text_and_usage(double: ServedDouble) -> None:
    completion = ask(client(double))
    assert "Qual o preço?" in (completion.choices[0].message.content or "")
    assert "antes" not in (completion.choices[0].message.content or "")
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    (call,) = double.http.get("/_double/calls").json()
    assert call["text"] == "Qual o preço?"


def test_reads_content_parts(double: ServedDouble) -> None:
    completion = client(double).chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": [{"type": "text", "text": "em partes"}]}]
    )
    assert "em partes" in (completion.choices[0].message.content or "")


def test_lists_models(double: ServedDouble) -> None:
    assert "gpt-4o-mini" in [model.id for model in client(double).models.list()]


@pytest.mark.parametrize(
    ("fault", "error", "code"),
    [
        ("rate_limit", openai.RateLimitError, "rate_limit_exceeded"),
        ("server_error", openai.InternalServerError, None),
        ("bad_key", openai.AuthenticationError, "invalid_api_key"),
    ],
)
def test_errors_on_order_then_answers_again(
    double: ServedDouble, fault: str, error: type[openai.APIStatusError], code: str | None
) -> None:
    double.http.post("/_double/fail", json={"class": fault, "count": 1})
    with pytest.raises(error) as raised:
        ask(client(double))
    assert raised.value.code == code
    assert ask(client(double)).choices


def test_the_package_retries_over_a_short_fault(double: ServedDouble) -> None:
    double.http.post("/_double/fail", json={"class": "server_error", "count": 1})
    assert ask(client(double, retries=1)).choices
    assert [call["fault"] for call in double.http.get("/_double/calls").json()] == ["server_error", None]


def test_timeout_makes_the_client_give_up(double: ServedDouble) -> None:
    double.http.post("/_double/fail", json={"class": "timeout", "count": 1})
    with pytest.raises(openai.APITimeoutError):
        ask(client(double, timeout=0.5))


def test_a_wrong_key_is_refused(double: ServedDouble) -> None:
    with pytest.raises(openai.AuthenticationError):
        ask(client(double, key="sk-other"))


def test_bad_requests_name_the_parameter(double: ServedDouble) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = double.http.post("/v1/chat/completions", json={"messages": []}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
    answer = double.http.post("/v1/chat/completions", json={"model": "m", "messages": []}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages")


def test_reset_forgets_calls_and_faults(double: ServedDouble) -> None:
    ask(client(double))
    double.http.post("/_double/fail", json={"class": "server_error"})
    double.http.post("/_double/reset")
    assert double.http.get("/_double/calls").json() == []
    assert ask(client(double)).choices
