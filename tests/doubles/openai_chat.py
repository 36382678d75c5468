# SPDX-License-Identifier: GPL-3.0-or-later
"""The OpenAI stand-in: chat completions that repeat what the user said, and its errors on order."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from typing import Any

from flask import Flask, Response, request

from .faults import Faults, UnknownFaultError
from .settings import OpenAISettings
from .wsgi import bearer_matches, hang_up, json_answer, now_rfc3339

MODELS = ("gpt-4o-mini", "gpt-4o", "gpt-4.1-mini")
REMEMBERED_CALLS = 20_000
MADE_AT = 1_721_172_741

ERRORS: dict[str, tuple[int, str, str, str | None]] = {
    "rate_limit": (429, "Rate limit reached for requests. Please try again in 1s.", "requests", "rate_limit_exceeded"),
    "server_error": (
        500,
        "The server had an error while processing your request. Sorry about that!",
        "server_error",
        None,
    ),
    "bad_key": (401, "Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
}
FAULTS = frozenset(ERRORS) | {"timeout"}


class RefusedError(Exception):
    """The request is refused; carries the whole answer."""

    def __init__(self, status: int, message: str, kind: str, code: str | None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _bad_request(message: str, param: str) -> RefusedError:
    return RefusedError(400, message, "invalid_request_error", None, param)


def _checked(body: Any, text: str | None) -> tuple[dict[str, Any], str]:
    """Return body and text when they can be completed, else raise RefusedError."""
    if not isinstance(body, dict) or not isinstance(body.get("model"), str) or not body["model"]:
        raise _bad_request("you must provide a model parameter", "model")
    if text is None:
        raise _bad_request("'messages' must hold a message of the user", "messages")
    if body.get("stream"):
        raise _bad_request("this double does not stream", "stream")
    return body, text


def text_of(content: Any) -> str:
    """The text of a message's content, which is a string or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict)).strip()
    return ""


def last_user_text(messages: list[Any]) -> str | None:
    """What the user said last, or None when no message is the user's."""
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            return text_of(message.get("content"))
    return None


def tokens(text: str) -> int:
    """A rough count; only its being positive and growing with the text matters."""
    return max(1, len(text) // 4)


def completion(body: dict[str, Any], text: str) -> dict[str, Any]:
    """A ``chat.completion`` object whose answer contains ``text``."""
    answer = f"Você disse: {text}"
    prompt_tokens = sum(tokens(text_of(message.get("content"))) + 4 for message in body["messages"])
    completion_tokens = tokens(answer)
    return {
        "id": "chatcmpl-" + secrets.token_hex(15),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": answer, "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": "fp_double",
    }


def create_app(settings: OpenAISettings | None = None) -> Flask:
    settings = settings or OpenAISettings.from_environment()
    faults = Faults(FAULTS)
    calls: deque[dict[str, Any]] = deque(maxlen=REMEMBERED_CALLS)
    app = Flask(__name__)

    def authorise() -> None:
        if not request.headers.get("Authorization"):
            raise RefusedError(401, "You didn't provide an API key.", "invalid_request_error", None)
        if settings.api_key and not bearer_matches(request, settings.api_key):
            raise RefusedError(*ERRORS["bad_key"])

    @app.post("/v1/chat/completions")
    def chat_completions() -> Response:
        authorise()
        fault = faults.take()
        body = request.get_json(force=True, silent=True)
        messages = body.get("messages") if isinstance(body, dict) else None
        text = last_user_text(messages) if isinstance(messages, list) else None
        calls.append({"at": now_rfc3339(), "text": text, "messages": messages, "fault": fault})
        if fault in ERRORS:
            raise RefusedError(*ERRORS[fault])
        if fault == "timeout":
            faults.hang()
            return hang_up(request)
        body, text = _checked(body, text)
        if settings.answer_delay_s:
            threading.Event().wait(settings.answer_delay_s)
        headers = {"x-request-id": "req_" + secrets.token_hex(16), "openai-processing-ms": "1"}
        return json_answer(completion(body, text), headers=headers)

    @app.get("/v1/models")
    def models() -> Response:
        authorise()
        data = [{"id": name, "object": "model", "created": MADE_AT, "owned_by": "system"} for name in MODELS]
        return json_answer({"object": "list", "data": data})

    @app.errorhandler(RefusedError)
    def refused(refusal: RefusedError) -> Response:
        headers = {"x-request-id": "req_" + secrets.token_hex(16)}
        if refusal.status == 429:
            headers["retry-after"] = "1"
        return json_answer(refusal.body, refusal.status, headers)

    @app.errorhandler(404)
    @app.errorhandler(405)
    def unknown_path(_error: Exception) -> Response:
        return refused(
            RefusedError(404, f"Invalid URL ({request.method} {request.path})", "invalid_request_error", None)
        )

    @app.get("/_double/health")
    def health() -> Response:
        return json_answer({"status": "ok", "calls": len(calls), "fault": faults.describe()})

    @app.get("/_double/calls")
    def made_calls() -> Response:
        return json_answer(list(calls))

    @app.post("/_double/fail")
    def fail() -> Response:
        try:
            return json_answer(faults.set(request.get_json(force=True, silent=True)))
        except UnknownFaultError as error:
            return json_answer({"error": str(error)}, 400)

    @app.post("/_double/reset")
    def reset() -> Response:
        faults.set({"class": "off"})
        calls.clear()
        return json_answer({"status": "ok"})

    return app
