# SPDX-License-Identifier: GPL-3.0-or-later
"""The signed probe against a real HTTP server, and the replay wait against scripted answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import pytest
from ansible.module_utils.whats_agent.docker_host import ContainerState, DockerHost, ExecResult, parse_container
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.probe import Listener, Prober, probe_body, signature
from ansible.module_utils.whats_agent.replay import parse_status, wait_for_replay

SECRET = "app-secret"


class Agent:
    """A webhook that answers what a test wants and keeps what it got."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.signed_answers = [200]
        self.unsigned_answer = 401
        self.port = 0


@pytest.fixture
def agent() -> Iterator[Agent]:
    """Serve on a free port."""
    state = Agent()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("X-Hub-Signature-256") == signature(body, SECRET):
                state.bodies.append(body)
                status = state.signed_answers.pop(0) if len(state.signed_answers) > 1 else state.signed_answers[0]
            else:
                status = state.unsigned_answer
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_args: Any) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()


def test_the_signed_probe_is_accepted_and_the_unsigned_one_is_not(agent: Agent) -> None:
    prober = Prober(SECRET, "id-1", timeout=5)
    here = Listener("127.0.0.1", agent.port)
    assert prober.refuses_unsigned(here).ok
    assert prober.accepts_signed(here).ok
    assert json.loads(agent.bodies[0])["entry"][0]["changes"][0]["value"] == {"probe_id": "id-1"}


def test_an_agent_that_takes_unsigned_calls_is_found_out(agent: Agent) -> None:
    agent.unsigned_answer = 200
    hop = Prober(SECRET, "id-1", timeout=0.3).refuses_unsigned(Listener("127.0.0.1", agent.port))
    assert (hop.ok, hop.detail) == (False, "HTTP 200")


def test_a_wrong_secret_is_seen_as_refusal(agent: Agent) -> None:
    hop = Prober("other", "id-1", timeout=0.3).accepts_signed(Listener("127.0.0.1", agent.port))
    assert (hop.ok, hop.detail) == (False, "HTTP 401")


def test_an_answer_that_comes_good_within_the_deadline_counts(agent: Agent) -> None:
    agent.signed_answers = [502, 503, 200]
    assert Prober(SECRET, "id-1", timeout=5).accepts_signed(Listener("127.0.0.1", agent.port)).ok


def test_nobody_listening_is_a_hop_that_failed_and_no_exception(agent: Agent) -> None:
    hop = Prober(SECRET, "id-1", timeout=0.3).accepts_signed(Listener("127.0.0.1", 1))
    assert not hop.ok
    assert "ConnectionRefusedError" in hop.detail


def test_tls_that_is_none_is_a_hop_that_failed(agent: Agent) -> None:
    hop = Prober(SECRET, "id-1", timeout=0.3).accepts_signed(Listener("127.0.0.1", agent.port, "agent.example"), "tls")
    assert (hop.name, hop.ok) == ("tls", False)


def test_the_row_is_waited_for(fake_clock: Any) -> None:
    answers = iter([0, 0, 1])
    hop = Prober(SECRET, "id-1", timeout=5, clock=fake_clock.clock).row(lambda _probe_id: next(answers))
    assert (hop.ok, hop.detail, hop.seconds) == (True, "1 row", 0.5)

    def no_database(_probe_id: str) -> int:
        raise WhatsAgentError("PostgreSQL: connection refused")

    hop = Prober(SECRET, "id-1", timeout=5, clock=fake_clock.clock).row(no_database)
    assert (hop.ok, hop.detail) == (False, "PostgreSQL: connection refused")


def test_the_body_is_what_the_parts_agreed_on() -> None:
    assert probe_body("u").startswith(b'{"object":"whatsapp_business_account","entry":[{"id":"probe"')


class ScriptedHost:
    """A Docker host whose worker answers from a list; a string is stderr of a failure, None means not running."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers = answers

    def require_running(self, project: str, service: str) -> ContainerState:
        if self.answers[0] is None:
            self.answers.pop(0)
            raise WhatsAgentError(f"the service {service} of {project} is not running (exited, exit code 1)")
        state = {"Status": "running"}
        return parse_container({"Id": "c1", "Name": "/w-1", "State": state, "Config": {"Labels": None}})

    def execute(self, container: str, argv: list[str], *, timeout: float) -> ExecResult:
        assert (container, argv) == ("c1", ["whats-agent", "replay-status"])
        answer = self.answers.pop(0)
        if isinstance(answer, str):
            return ExecResult(1, "", answer)
        counts = {"log_last_id": answer[0], "projected_id": answer[1], "lag": 0, "queued": 0, "in_flight": 0}
        return ExecResult(0, json.dumps(counts), "")


def _wait(answers: list[Any], fake_clock: Any, timeout: float = 10) -> Any:
    host = cast("DockerHost", ScriptedHost(answers))
    return wait_for_replay(host, "p", "worker", timeout=timeout, clock=fake_clock.clock)


def test_replay_is_done_when_what_the_log_held_at_first_is_projected(fake_clock: Any) -> None:
    replay = _wait([(10, 4), (15, 9), (20, 10)], fake_clock)
    assert (replay.ok, replay.target_id) == (True, 10)


def test_replay_outlasts_a_worker_that_is_still_starting(fake_clock: Any) -> None:
    replay = _wait([None, "Traceback\nno database", (3, 3)], fake_clock)
    assert (replay.ok, replay.problem) == (True, "")


def test_replay_that_takes_too_long_says_how_far_it_came(fake_clock: Any) -> None:
    replay = _wait([(10, 4)] * 50, fake_clock, timeout=2)
    assert (replay.ok, replay.status["projected_id"]) == (False, 4)
    replay = _wait(["Traceback\nno database"] * 50, fake_clock, timeout=2)
    assert (replay.ok, replay.problem) == (False, "replay-status failed in w-1: no database")


@pytest.mark.parametrize("stdout", ["", "[]", '{"log_last_id": 1}', '{"log_last_id": "x"}'])
def test_an_answer_of_another_shape_is_an_error(stdout: str) -> None:
    with pytest.raises(WhatsAgentError, match="answered something else"):
        parse_status(stdout)
