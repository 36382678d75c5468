# SPDX-License-Identifier: GPL-3.0-or-later
"""One sender thread: take a row, make the answer, store it, log the attempt, send, log the result."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from whats_agent import clock, logs
from whats_agent.conversation.context import system_prompt, turns_for
from whats_agent.database.connection import Connection
from whats_agent.errors import AnswerError, MessageLogError
from whats_agent.graph.client import MAX_TEXT, Graph
from whats_agent.graph.outcome import delay_for
from whats_agent.message_log import Kind, MessageLog
from whats_agent.metrics import Recorder, layout
from whats_agent.openai_client.client import Answerer
from whats_agent.outbox import queue, rates, settle
from whats_agent.outbox.queue import Claim, Reply
from whats_agent.outbox.rates import Rate
from whats_agent.outbox.records import Outcome, SendAttempt, SendResult
from whats_agent.retry import Backoff
from whats_agent.sender.bell import Bell
from whats_agent.sender.leases import Leases
from whats_agent.sender.read_marks import ReadMarks
from whats_agent.sender.stop_switch import StopSwitch
from whats_agent.settings import WorkerSettings

GATE_POLL_SECONDS = 0.05
STOPPED_POLL_SECONDS = 0.2
DISK_RETRY_SECONDS = 5.0

_log = logging.getLogger("whats_agent.sender")
_business = logging.getLogger(logs.BUSINESS)


@dataclass(frozen=True, slots=True)
class Tools:
    """What the sender threads of a worker share."""

    settings: WorkerSettings
    message_log: MessageLog
    connect: Callable[[], Connection]
    graph: Graph
    answerer: Answerer
    switch: StopSwitch
    leases: Leases
    read_marks: ReadMarks
    recorder: Recorder
    bell: Bell


def wait_for_projection(connection: Connection, message_log: MessageLog, stop: threading.Event) -> bool:
    """Hold a new database session back until PostgreSQL knows everything the log said when the session began.

    A session is new after every restore. What the restored database lost, the log's own send records among it, is projected
    before anything is sent, and so nothing is answered a second time. False when told to stop.
    """
    end, identity = message_log.last_id(), message_log.identity()
    while not stop.is_set():
        row = connection.execute("select position from projection where log_identity = %s", (identity,)).fetchone()
        if row is not None and row[0] >= end:
            return True
        stop.wait(GATE_POLL_SECONDS)
    return False


class Sender:
    """Runs in its own thread with its own database session."""

    def __init__(self, tools: Tools) -> None:
        settings = tools.settings
        self._tools = tools
        self._pair_rate = Rate(settings.pair_rate_seconds, settings.pair_rate_burst)
        self._number_rate = Rate(1.0 / settings.send_rate_per_second, settings.send_rate_burst)

    def run(self, stop: threading.Event) -> None:
        """Send until ``stop`` is set; a failure of PostgreSQL or the log starts over with a new session."""
        backoff = Backoff(_log, "sender", least=0.2, most=5.0)
        while not stop.is_set():
            try:
                with self._tools.connect() as connection:
                    if wait_for_projection(connection, self._tools.message_log, stop):
                        backoff.succeeded()
                        self._serve(connection, stop)
            except (psycopg.Error, MessageLogError) as error:
                # The others' sessions are as dead, but they sleep: they shall notice now and not when a message comes.
                self._tools.bell.ring_all()
                stop.wait(backoff.failed(error))

    def _serve(self, connection: Connection, stop: threading.Event) -> None:
        tools = self._tools
        while not stop.is_set():
            if not tools.switch.may_send():
                stop.wait(STOPPED_POLL_SECONDS)
                continue
            claimed = queue.claim(connection, tools.settings.sender_lease_seconds)
            if claimed is None:
                tools.switch.trial_over()
                tools.bell.wait(stop)
                continue
            tools.bell.ring()  # where there was one row, there may be another
            token = logs.correlation_id.set(str(claimed.id))
            tools.leases.add(claimed.lease)
            try:
                self._handle(connection, claimed)
            finally:
                tools.leases.discard(claimed.lease)
                tools.switch.trial_over()
                logs.correlation_id.reset(token)

    def _handle(self, connection: Connection, claimed: Claim) -> None:
        settings = self._tools.settings
        wait = rates.take_for_conversation(connection, claimed.conversation_id, self._pair_rate)
        if wait > 0:
            queue.give_back(connection, claimed.id, claimed.lease, wait)
            return
        text, source = claimed.reply_text, claimed.reply_source
        if not text or not source:
            reply = self._make_reply(connection, claimed)
            text, source = reply.text, reply.source
            if not queue.keep_reply(connection, claimed, reply):
                _log.warning(logs.fields(event="lease_lost", stage="answer"))
                return
        # Short at most: as many threads as there are share the number's rate.
        time.sleep(rates.take_for_number(connection, claimed.phone_number_id, self._number_rate))
        if not queue.start_sending(connection, claimed, settings.send_echo_wait_seconds):
            _log.warning(logs.fields(event="lease_lost", stage="send"))
            return
        attempt = claimed.attempts + 1
        try:
            self._tools.message_log.append(Kind.SEND_ATTEMPT, SendAttempt(claimed.id, attempt, text, source).to_bytes())
        except MessageLogError as error:
            # Not sent: an attempt that the log does not know could be repeated after a restore.
            _log.error(logs.fields(event="send_postponed", reason=error))
            unsent = SendResult(
                claimed.id, attempt, Outcome.RETRY, error="message log not writable", delay=DISK_RETRY_SECONDS
            )
            settle.apply_result(connection, unsent, clock.now(), settings.send_echo_wait_seconds)
            return
        result = self._send(claimed, attempt, text, source)
        try:
            self._tools.message_log.append(Kind.SEND_RESULT, result.to_bytes())
        except MessageLogError as error:
            _log.critical(logs.fields(event="send_result_not_logged", outcome=result.outcome, reason=error))
        settle.apply_result(connection, result, clock.now(), settings.send_echo_wait_seconds)
        if result.outcome is not Outcome.RETRY:
            self._tools.bell.ring()  # the conversation's next row can go now

    def _make_reply(self, connection: Connection, claimed: Claim) -> Reply:
        settings = self._tools.settings
        fixed = {
            "polite": settings.polite_answer,
            "handover": settings.handover_answer,
            "handback": settings.handback_answer,
        }
        if claimed.kind in fixed:
            return Reply(fixed[claimed.kind][:MAX_TEXT], claimed.kind)
        self._tools.read_marks.add(claimed.phone_number_id, claimed.inbound_wamid)
        turns = turns_for(
            connection,
            claimed.conversation_id,
            claimed.message_id,
            settings.context_turns,
            system_prompt(settings),
        )
        try:
            answer = self._tools.answerer.answer(turns)
        except AnswerError as error:
            _log.error(logs.fields(event="fallback_answer", reason=f"openai {error}"))
            return Reply(settings.fallback_answer[:MAX_TEXT], "fallback")
        return Reply(
            answer.text[:MAX_TEXT], "openai", answer.prompt_tokens, answer.completion_tokens, settings.openai_model
        )

    def _send(self, claimed: Claim, attempt: int, text: str, source: str) -> SendResult:
        answer = self._tools.graph.send_text(claimed.phone_number_id, claimed.wa_id, claimed.user_id, text, claimed.id)
        delay = 0.0
        if answer.outcome is Outcome.STOPPED:
            self._tools.switch.stop(f"{answer.error_code or ''} {answer.error or ''}".strip())
            delay = self._tools.settings.send_stop_seconds
        elif answer.outcome is Outcome.RETRY:
            delay = delay_for(answer, attempt)
        if answer.outcome in (Outcome.SENT, Outcome.FAILED):
            self._tools.switch.succeeded()
        level = logging.INFO if answer.outcome is Outcome.SENT else logging.ERROR
        _log.log(
            level,
            logs.fields(
                event="send",
                outcome=answer.outcome.value,
                attempt=attempt,
                error_code=answer.error_code or "-",
                reason=answer.error or "-",
                retry_in=f"{delay:g}s",
            ),
        )
        recorder = self._tools.recorder
        recorder.count(f"sends_total|{answer.outcome.value}")
        age = (clock.now() - claimed.received_at).total_seconds()
        if answer.outcome is Outcome.FAILED:
            recorder.observe(layout.ANSWER, age, error=True)
        elif answer.outcome is Outcome.SENT:
            recorder.observe(layout.ANSWER, age)
            recorder.count(f"answers_total|{source}")
            _business.info(logs.fields(event="answered", kind=claimed.kind, age=f"{age:.3f}s", attempts=attempt))
        return SendResult(claimed.id, attempt, answer.outcome, answer.wamid, answer.error_code, answer.error, delay)
