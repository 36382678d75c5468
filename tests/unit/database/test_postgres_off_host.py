# SPDX-License-Identifier: GPL-3.0-or-later
"""A second repository whose host is away keeps nothing here from being looked at, recovered or archived, and is named."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.whats_agent import pgbackrest as pb
from ansible.module_utils.whats_agent import (
    postgres_backup,
    postgres_diagnosis,
    postgres_mend_storage,
    postgres_receiver,
    postgres_verify,
)
from ansible.module_utils.whats_agent.clock import Clock
from ansible.module_utils.whats_agent.docker_host import ExecResult
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.postgres_backrest import Backrest
from ansible.module_utils.whats_agent.postgres_host import DatabasePlace
from ansible.module_utils.whats_agent.postgres_mend_sessions import Order

DATA = Path(__file__).parent / "data"
AWAY = (DATA / "info_second_away.json").read_text(encoding="utf-8")
REFUSED = "[HostConnectError] unable to connect to '172.17.0.6:22': [111] Connection refused"
UNVERIFIED = "[CryptoError] unable to verify certificate presented by '172.17.0.6:9443': [18] self-signed certificate"
SEGMENT = "000000010000000000000009"


def told(**statuses: tuple[int, str]) -> str:
    """Return that answer with other status codes and messages of its repositories, `r1` and `r2`."""
    answer = json.loads(AWAY)
    for entry in answer[0]["repo"]:
        entry["status"] = dict(zip(("code", "message"), statuses[f"r{entry['key']}"], strict=True))
    return json.dumps(answer)


class Answers(Backrest):
    """pgBackRest that gives prepared answers, by the command; what is run is kept."""

    def __init__(self, tmp_path: Path, answers: dict[str, list[ExecResult]]) -> None:
        nothing: Any = None
        super().__init__(DatabasePlace(tmp_path, tmp_path / "state"), nothing, nothing)
        self.answers = answers
        self.ran: list[list[str]] = []

    def run(self, argv: Sequence[str], *, timeout_s: float = 60) -> ExecResult:
        """Answer the next one of a command, its last one again and again."""
        self.ran.append(list(argv))
        command = next(name for name in self.answers if name in argv)
        prepared = self.answers[command]
        return prepared.pop(0) if len(prepared) > 1 else prepared[0]

    def repositories(self) -> list[int]:
        """Return the numbers of two repositories."""
        return [1, 2]

    def here(self, _repo: int) -> None:
        """Have both listed by pgBackRest."""


def answers(tmp_path: Path, info: str, archives: Sequence[str] = ("{}",)) -> Answers:
    """Return a pgBackRest whose check fails, with its answer to info and those of one repository's listings."""
    listed = [ExecResult(0, archive, "") for archive in archives]
    failing = ExecResult(49, f"ERROR: [049]: {REFUSED}", "")
    return Answers(tmp_path, {"check": [failing], "info": [ExecResult(0, info, "")], "repo-ls": listed})


def listing(segment: str) -> str:
    """Return an archive's listing with one segment in it."""
    return json.dumps({f"17-1/{segment[:16]}/{segment}-{'a' * 40}.zst": {"type": "file"}})


@pytest.fixture
def switched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for PostgreSQL, which switches to the next segment."""

    class Connection(contextlib.AbstractContextManager["Connection"]):
        def __exit__(self, *_: object) -> None:
            pass

        def execute(self, _statement: str) -> Connection:
            return self

        def fetchone(self) -> tuple[str]:
            return (SEGMENT,)

    monkeypatch.setattr(
        "ansible.module_utils.whats_agent.postgres_backrest.database", lambda *_args, **_more: Connection()
    )


def clock(now: list[float]) -> Clock:
    """Return a clock that only sleeping moves."""

    def sleep(seconds: float) -> None:
        now[0] += seconds

    return Clock(boottime=lambda: now[0], sleep=sleep)


@pytest.mark.parametrize(
    ("info", "numbers"),
    [
        pytest.param(AWAY, [2], id="as pgBackRest tells it"),
        pytest.param(told(r1=(0, "ok"), r2=(0, "ok")), [], id="both there"),
        pytest.param(told(r1=(99, "x"), r2=(99, "x")), [], id="the first cannot be used either"),
        pytest.param(told(r1=(0, "ok"), r2=(99, "[CryptoError] unable to flush")), [], id="another passphrase"),
        pytest.param(told(r1=(0, "ok"), r2=(99, UNVERIFIED)), [2], id="a host nobody vouches for"),
        pytest.param(told(r1=(99, "[FileOpenError] denied"), r2=(0, "ok")), [], id="the one on this host"),
        pytest.param(told(r1=(0, "ok"), r2=(1, "missing stanza path")), [], id="reached, and empty"),
    ],
)
def test_away_is_a_repository_off_this_host_that_cannot_be_reached_beside_one_that_can(
    info: str, numbers: list[int]
) -> None:
    found = pb.away(pb.parse_info(info))
    assert list(found) == numbers
    assert all(reason in (REFUSED, UNVERIFIED) for reason in found.values())


@pytest.mark.usefixtures("switched")
def test_archiving_is_proven_where_it_can_be_and_the_one_that_is_away_is_told(tmp_path: Path) -> None:
    now = [0.0]
    backrest = answers(tmp_path, AWAY, ["{}", "{}", listing(SEGMENT)])
    assert backrest.prove_archiving(clock=clock(now)) == {2: REFUSED}
    assert now[0] == 2.0
    assert [argv[1] for argv in backrest.ran if "repo-ls" in argv] == ["--repo=1"] * 3


@pytest.mark.usefixtures("switched")
def test_archiving_that_does_not_work_here_either_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WhatsAgentError, match=f"{SEGMENT} has not reached repository 1 within 120 s"):
        answers(tmp_path, AWAY).prove_archiving(clock=clock([0.0]))


@pytest.mark.usefixtures("switched")
def test_archiving_that_fails_with_every_repository_at_hand_stays_an_error(tmp_path: Path) -> None:
    with pytest.raises(WhatsAgentError, match="WAL archiving does not work"):
        answers(tmp_path, told(r1=(0, "ok"), r2=(0, "ok")), [listing(SEGMENT)]).prove_archiving()


@pytest.mark.usefixtures("switched")
def test_a_recovered_database_is_verified_beside_a_repository_that_is_away(tmp_path: Path) -> None:
    check, away = postgres_verify._archiving(answers(tmp_path, AWAY, [listing(SEGMENT)]))
    assert check.ok
    assert "repository 2 cannot be reached" in check.detail
    assert away == {2: REFUSED}


def test_the_diagnosis_sends_nobody_to_mend_here_what_is_away(tmp_path: Path) -> None:
    refusal = postgres_diagnosis._off_host(answers(tmp_path, AWAY))
    assert refusal is not None
    assert f"repository 2 cannot be reached: {REFUSED}" in refusal["en"]
    assert "repositório 2" in refusal["pt"]
    assert postgres_diagnosis._off_host(answers(tmp_path, told(r1=(1, "missing"), r2=(0, "ok")))) is None


def test_a_lost_repository_beside_one_in_order_is_prepared_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backrest = Answers(tmp_path, {"info": [ExecResult(0, told(r1=(3, "missing stanza data"), r2=(0, "ok")), "")]})
    monkeypatch.setattr(Backrest, "service", type("Service", (), {"binds": {}})())
    done = postgres_mend_storage.mend_archiving(backrest, Order(write=False))
    assert done == ["prepared the repository"]


class Filling(Answers):
    """The same, into which backups can be put; where they went is kept."""

    def __init__(self, tmp_path: Path, info: str) -> None:
        super().__init__(tmp_path, {"info": [ExecResult(0, info, "")]})
        self.filled: list[int] = []
        self.expired: list[int] = []

    def backup(self, kind: str, repo: int, _on_percent: object) -> pb.Backup:
        """Take one."""
        self.filled.append(repo)
        return pb.Backup("20261129-000000F", kind, repo, 1, 2, 3, 4, False, "", "", "", "")

    def expire(self, repo: int, _keep_full: int) -> None:
        """Let old ones go."""
        self.expired.append(repo)

    def stanza_create(self) -> None:
        """Prepare: pgBackRest refuses as long as one repository cannot be reached."""
        raise WhatsAgentError(REFUSED)

    def keep_infos(self) -> None:
        """Keep nothing."""


@pytest.fixture
def without_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no WAL receiver beside the database."""
    monkeypatch.setattr(postgres_receiver, "receiver_dir", lambda *_: None)
    monkeypatch.setattr(postgres_backup, "expirable", lambda *_: True)
    monkeypatch.setattr(postgres_backup, "safe_to_expire", lambda *_: True)


def nothing_told(_step: str) -> Any:
    """Stand in for a journal's progress."""


@pytest.mark.usefixtures("without_receiver")
@pytest.mark.parametrize(
    ("info", "filled"),
    [
        pytest.param(AWAY, [1], id="away"),
        pytest.param(told(r1=(0, "ok"), r2=(0, "ok")), [1, 2], id="both there"),
    ],
)
def test_a_backup_goes_wherever_it_can_and_what_is_away_is_named(tmp_path: Path, info: str, filled: list[int]) -> None:
    backrest = Filling(tmp_path, info)
    outcome = postgres_backup.take(backrest, "full", keep_full=4, progress=nothing_told)
    assert (backrest.filled, backrest.expired) == (filled, filled)
    told_of = "" if 2 in filled else f"repository 2 cannot be reached: {REFUSED}"
    assert outcome.as_dict()["away"] == told_of


@pytest.mark.usefixtures("without_receiver")
def test_a_deployment_leaves_a_repository_alone_that_is_away(tmp_path: Path) -> None:
    backrest = Filling(tmp_path, AWAY)
    outcome = postgres_backup.make_ready(backrest, keep_full=4, progress=nothing_told)
    assert (outcome.changed, backrest.filled, list(outcome.away)) == (False, [], [2])


def test_where_nothing_takes_a_backup_each_repository_says_why(tmp_path: Path) -> None:
    backrest = Filling(tmp_path, told(r1=(1, "missing stanza path"), r2=(99, REFUSED)))
    backrest.answers["info"] = [
        ExecResult(
            0,
            json.dumps(
                [
                    {
                        **json.loads(AWAY)[0],
                        "backup": [],
                        "repo": [
                            {"key": 1, "cipher": "none", "status": {"code": 1, "message": "missing stanza path"}},
                            {"key": 2, "cipher": "none", "status": {"code": 99, "message": REFUSED}},
                        ],
                        "status": {"code": 4, "message": "different across repos", "lock": {"backup": {"held": False}}},
                    }
                ]
            ),
            "",
        )
    ]
    with pytest.raises(WhatsAgentError, match=r"repository 2: the repository cannot be read: \[HostConnectError\]"):
        postgres_backup.make_ready(backrest, keep_full=4, progress=nothing_told)


@pytest.mark.parametrize(("away", "arrival_s"), [(AWAY, 900), (told(r1=(0, "ok"), r2=(0, "ok")), 60)])
def test_a_backup_waits_longer_for_its_wal_while_a_repository_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away: str, arrival_s: int
) -> None:
    backrest = answers(tmp_path, away)
    streamed: list[list[str]] = []

    class Engine:
        def require_running(self, *_: str) -> Any:
            return type("Container", (), {"id": "c"})

        def stream(self, _container: str, argv: list[str], *_: object, **__: object) -> int:
            streamed.append(argv)
            return 1

    monkeypatch.setattr(backrest, "docker", Engine())
    monkeypatch.setattr(backrest, "_projected", dict)
    monkeypatch.setattr(backrest, "_have_timeline_known", lambda: None)
    with pytest.raises(WhatsAgentError, match="the full backup failed"):
        backrest.backup("full", 1, lambda _: None)
    assert f"--archive-timeout={arrival_s}" in streamed[0]
