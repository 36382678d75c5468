# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking OpenAI for an answer."""

import time
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict

import openai
from openai import OpenAI
from openai.types.chat import ChatCompletion

from whats_agent.errors import AnswerError
from whats_agent.metrics import Recorder, layout
from whats_agent.openai_client.breaker import Breaker


class Turn(TypedDict):
    """One message shown to the model."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's text and what it cost in tokens (None when the API did not say)."""

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None


class Answerer(Protocol):
    """What the sender needs of OpenAI."""

    def answer(self, turns: list[Turn]) -> Answer:
        """Raises AnswerError."""
        ...


class OpenAIAnswerer:
    """Chat completions, with the package's own retries inside and the breaker around them."""

    def __init__(
        self,
        api_key: str,
        base_url: str,
        model: str,
        *,
        timeout: float,
        max_retries: int,
        max_tokens: int,
        breaker: Breaker,
        recorder: Recorder | None = None,
    ) -> None:
        self._client = OpenAI(api_key=api_key, base_url=base_url, timeout=timeout, max_retries=max_retries)
        self._model = model
        self._max_tokens = max_tokens
        self.breaker = breaker
        self._recorder = recorder

    def answer(self, turns: list[Turn]) -> Answer:
        """The model's answer to ``turns``. Raises AnswerError when the breaker is open, the call failed or nothing was said."""
        if not self.breaker.allows():
            self._count("breaker_open")
            raise AnswerError("the circuit breaker is open")
        started = time.perf_counter()
        try:
            # As chat.completions.create does, less its walk over the types of every message, which took longer than all the rest
            # of an answer together (25 ms for twenty turns); ours have the right shape by construction.
            completion = self._client.post(
                "/chat/completions",
                cast_to=ChatCompletion,
                body={"model": self._model, "messages": turns, "max_completion_tokens": self._max_tokens},
            )
        except BaseException as error:
            self.breaker.failed()
            self._count("error", time.perf_counter() - started)
            if isinstance(error, openai.OpenAIError):
                raise AnswerError(f"{type(error).__name__}: {error}"[:300]) from error
            raise
        self.breaker.succeeded()
        self._count("ok", time.perf_counter() - started)
        usage = completion.usage
        if usage is not None and self._recorder is not None:
            self._recorder.count("openai_tokens_total|prompt", usage.prompt_tokens)
            self._recorder.count("openai_tokens_total|completion", usage.completion_tokens)
        text = (completion.choices[0].message.content or "").strip() if completion.choices else ""
        if not text:
            raise AnswerError("the model said nothing")
        return Answer(text, usage.prompt_tokens if usage else None, usage.completion_tokens if usage else None)

    def _count(self, result: str, seconds: float | None = None) -> None:
        if self._recorder is not None:
            self._recorder.count(f"openai_calls_total|{result}")
            if seconds is not None:
                self._recorder.observe(layout.OPENAI, seconds, error=result == "error")
