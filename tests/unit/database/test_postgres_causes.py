# SPDX-License-Identifier: GPL-3.0-or-later
"""From what was seen to the cause: captured observations of databases that were really broken, and variations of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.whats_agent import env_file
from ansible.module_utils.whats_agent import postgres_causes as causes
from ansible.module_utils.whats_agent import postgres_diagnosis as diagnosis
from ansible.module_utils.whats_agent import postgres_words as words
from ansible.module_utils.whats_agent.breaker import BreakerState
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.plan import Situation, check_diagnosis, decide
from ansible.module_utils.whats_agent.postgres_diagnosis import assemble
from ansible.module_utils.whats_agent.postgres_observe import (
    WHOLE_BUDGET_S,
    LogSign,
    Observed,
    Space,
    VolumeFacts,
    page_budget,
    parse_docker_time,
    read_signs,
)
from ansible.module_utils.whats_agent.postgres_receiver import mode_of
from ansible.module_utils.whats_agent.postgres_server import ServerFacts

DATA = Path(__file__).parent / "data"


def seen(name: str) -> Observed:
    """Load a captured observation."""
    raw: dict[str, Any] = json.loads((DATA / f"seen_{name}.json").read_text(encoding="utf-8"))
    raw["volume"] = VolumeFacts(**raw["volume"]) if raw["volume"] else None
    raw["signs"] = tuple(LogSign(**sign) for sign in raw["signs"])
    if raw["server"]:
        lists = {key: tuple(value) for key, value in raw["server"].items() if isinstance(value, list)}
        raw["server"] = ServerFacts(**{**raw["server"], **lists})
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
    return Observed(**fields)


HEALTHY = seen("healthy")
assert HEALTHY.server is not None
assert HEALTHY.volume is not None
SERVER, VOLUME = HEALTHY.server, HEALTHY.volume


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("healthy", "healthy"),
        ("healthy_again", "healthy"),
        ("mended_page", "healthy"),
        ("mended_again", "healthy"),
        ("index_rebuilt", "healthy"),
        ("paused", "container_paused"),
        ("stopped", "container_stopped"),
        ("killed", "container_stopped"),
        ("missing", "container_missing"),
        ("volume_empty", "volume_empty"),
        ("volume_empty_looping", "volume_empty"),
        ("control_file_lost", "control_file_lost"),
        ("control_damaged", "startup_damaged"),
        ("checkpoint_lost", "startup_damaged"),
        ("bad_configuration", "config_refused"),
        ("page_corrupt_unread", "page_corrupt"),
        ("page_corrupt_read", "page_corrupt"),
        ("index_corrupt", "index_corrupt"),
        ("catalog_corrupt", "catalog_corrupt"),
        ("pg_class_corrupt", "catalog_corrupt"),
        ("credentials_wrong", "credentials_wrong"),
    ],
)
def test_what_was_really_broken_is_named(name: str, cause: str) -> None:
    found = causes.find(seen(name))
    assert found.cause == cause
    assert found.evidence


def test_a_control_file_of_mere_noise_is_damage_and_no_other_version() -> None:
    # What PostgreSQL 17 said when all of the file was overwritten: it looks at the version in it before its checksum.
    log = "2026-11-29 07:16:07.475 UTC [6] 55000 FATAL:  database files are incompatible with server\n"
    signs = read_signs(log, None)
    found = causes.find(replace(seen("control_damaged"), signs=signs))
    assert found.cause == "startup_damaged"
    assert found.evidence[0] == ("log", log.strip())


def test_what_the_repository_has_lost_is_said_first() -> None:
    lost = ("archive/main/archive.info",)
    found = causes.find(replace(HEALTHY, server=server(archive_failing=True, archive_ready=2), repository_lacks=lost))
    assert found.cause == "archive_failing"
    assert found.evidence[0] == ("backup repository", "archive/main/archive.info is missing, both copies")
    # Without backup.info WAL goes on being archived, and no backup can be restored.
    assert causes.find(replace(HEALTHY, repository_lacks=("backup/main/backup.info",))).cause == "archive_failing"


def container(**changes: Any) -> dict[str, Any]:
    """Return the healthy container with some facts changed."""
    assert HEALTHY.container is not None
    return {**HEALTHY.container, **changes}


def server(**changes: Any) -> ServerFacts:
    """Return the healthy server with some facts changed."""
    return replace(SERVER, **changes)


BLOCKER = {
    "pid": 7,
    "user": "whats_agent",
    "application": "",
    "state": "idle in transaction",
    "idle_s": 90.0,
    "blocked": 3,
    "waited_s": 80.0,
}
SLOT = {"slot_name": "gone", "active": False, "wal_status": "extended", "held": 3 * 1024**3}


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"engine_error": "cannot reach the Docker engine"}, "engine_down"),
        ({"env_error": ".env lacks DB_PASSWORD"}, "config_invalid"),
        ({"volume": None}, "volume_lost"),
        ({"volume": replace(VOLUME, present=False)}, "volume_lost"),
        ({"volume": replace(VOLUME, version="16")}, "wrong_major"),
        ({"container_volume": "another"}, "container_outdated"),
        (
            {"container_volume": "another", "container": container(status="exited"), "server": None},
            "container_outdated",
        ),
        ({"container": container(status="restarting", restart_count=1, exit_code=1), "server": None}, "crash_loop"),
        (
            {"container": container(status="running", restart_count=4), "uptime": 3.0, "server": None},
            "crash_loop",
        ),
        ({"container": container(status="exited", exit_code=1), "server": None}, "container_exited"),
        ({"container": container(status="exited", exit_code=137, oom_killed=True)}, "container_exited"),
        (
            {
                "container": container(status="exited", exit_code=1),
                "signs": (LogSign("disk_full", "No space left on device"),),
            },
            "disk_full",
        ),
        ({"container": container(status="exited", exit_code=72)}, "container_exited"),
        ({"server": None, "connection_error": "FATAL:  the database system is starting up"}, "starting"),
        ({"server": None, "connection_error": "connection refused", "uptime": 1.0}, "starting"),
        ({"server": None, "connection_error": "connection refused", "uptime": 999.0}, "unresponsive"),
        ({"server": None, "connection_error": "timeout expired", "uptime": 1.0}, "unresponsive"),
        ({"server": None, "connection_error": "FATAL:  sorry, too many clients already"}, "connections_exhausted"),
        (
            {
                "server": None,
                "connection_error": "FATAL: could not open file",
                "uptime": 999.0,
                "signs": (LogSign("file_missing", 'could not open file "base/5/1259": No such file'),),
            },
            "catalog_corrupt",
        ),
        ({"server": server(in_recovery=True)}, "read_only_standby"),
        ({"server": server(databases=("postgres",))}, "database_missing"),
        ({"login_error": 'FATAL:  password authentication failed for user "x"'}, "credentials_wrong"),
        ({"login_error": "FATAL: remaining connection slots are reserved"}, "connections_exhausted"),
        ({"login_error": 'FATAL:  role "x" is not permitted to log in'}, "credentials_wrong"),
        ({"login_error": "connection timeout expired"}, "unresponsive"),
        ({"login_error": 'FATAL:  too many connections for role "x"'}, "connections_exhausted"),
        ({"wrong_address": ("DB_HOST=elsewhere",)}, "url_wrong"),
        # Whether that role can log in or not, it can do nothing with the agent's tables.
        ({"wrong_user": ("DB_USER=agent", "whats_agent")}, "url_wrong"),
        (
            {
                "wrong_user": ("DB_USER=agent", "whats_agent"),
                "login_error": 'FATAL:  password authentication failed for user "agent"',
            },
            "url_wrong",
        ),
        ({"server": server(databases=("other",)), "agent_databases": ("other",)}, "url_wrong"),
        ({"server": server(databases=("a", "b")), "agent_databases": ("a", "b")}, "database_missing"),
        ({"volume": replace(VOLUME, present=False), "container_volume_there": True}, "volume_misnamed"),
        (
            {"server": None, "connection_error": "connection timeout expired", "stopped_processes": ("7 (postgres)",)},
            "process_stopped",
        ),
        ({"spaces": (Space("backup repository", "/r", 1000),)}, "disk_full"),
        ({"spaces": (Space("backup repository", "/r", 64 * 1024**2),)}, "healthy"),
        ({"container": container(status="exited", exit_code=0), "volume": replace(VOLUME, free=1000)}, "disk_full"),
        ({"server": server(invalid_indexes=("public.i",))}, "index_corrupt"),
        ({"bad_pages": ({"kind": "catalog_index", "what": "page 1 of pg_catalog.i"},)}, "index_corrupt"),
        ({"errors": ("invalid page in block 3 of relation base/16485/1255",), "pages": None}, "catalog_corrupt"),
        ({"errors": ("canceling statement due to statement timeout",), "pages": None}, "healthy"),
        ({"server": None, "errors": ("cache lookup failed for type 25",)}, "catalog_corrupt"),
        ({"server": None, "errors": ("canceling statement due to statement timeout",)}, "unresponsive"),
        ({"server": server(waiting_commits=2)}, "commits_waiting"),
        ({"server": server(receiver_bypassed=True)}, "receiver_bypassed"),
        ({"volume": replace(VOLUME, free=1000)}, "disk_full"),
        ({"server": server(connections=95)}, "connections_exhausted"),
        ({"server": server(connections=94)}, "healthy"),
        ({"server": server(blockers=(BLOCKER,))}, "blocked"),
        ({"server": server(blockers=({**BLOCKER, "idle_s": 2.0, "waited_s": 2.0},))}, "healthy"),
        ({"server": server(blockers=({**BLOCKER, "state": "active"},))}, "healthy"),
        ({"server": server(archive_failing=True, archive_ready=3)}, "archive_failing"),
        ({"server": server(slots=(SLOT,))}, "slot_holding_wal"),
        ({"server": server(slots=({**SLOT, "active": True},))}, "healthy"),
        ({"server": server(collation_mismatch=("database whats_agent",))}, "collation_changed"),
    ],
)
def test_variations(changes: dict[str, Any], cause: str) -> None:
    assert causes.find(replace(HEALTHY, **changes)).cause == cause


def test_a_dropped_database_is_named() -> None:
    found = causes.find(replace(HEALTHY, server=server(databases=("postgres",))))
    assert found.cause == "database_missing"
    assert found.summary["en"] == f"the agent's database does not exist: {HEALTHY.database}"


def test_what_hides_the_others_is_named_first() -> None:
    worst = replace(
        seen("page_corrupt_read"),
        login_error="password authentication failed",
        server=server(archive_failing=True, blockers=(BLOCKER,)),
    )
    assert causes.find(worst).cause == "page_corrupt"
    assert causes.find(replace(worst, volume=replace(VOLUME, present=False))).cause == "volume_lost"


def test_a_complaint_in_the_log_alone_is_no_damage() -> None:
    complaint = LogSign("invalid_page", "invalid page in block 3 of relation base/1/2", "base/1/2")
    assert causes.find(replace(HEALTHY, signs=(complaint,))).cause == "healthy"


ORPHAN = {"kind": "orphan", "what": "page 3 of no relation (base/1/2)"}
READ = {"scanned": 8192, "total": 8192, "complete": True, "catalog_read": True}


def test_a_bad_page_of_a_file_that_is_nobodys_is_told_and_restores_nothing() -> None:
    found = causes.find(replace(HEALTHY, bad_pages=(ORPHAN,), pages=READ))
    assert found.cause == "healthy"
    assert ("bad page of a file that is nobody's", ORPHAN["what"]) in found.evidence
    # A catalog that cannot be asked names nobody, so the page may be its own.
    unread = {**READ, "catalog_read": False}
    assert causes.find(replace(HEALTHY, bad_pages=(ORPHAN,), pages=unread)).cause == "catalog_corrupt"


def test_a_bad_page_of_nobodys_does_not_make_an_abandoned_restore_needed() -> None:
    found = causes.find(replace(HEALTHY, bad_pages=(ORPHAN,), pages=READ, restore=RESTORE))
    assert found.cause == "restore_abandoned"


def wrong(kind: str, name: str, *, catalog: bool = False) -> dict[str, Any]:
    """Return what pg_amcheck found wrong."""
    return {"kind": kind, "name": name, "catalog": catalog, "what": f"{kind} {name}: lacks a row"}


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        ([wrong("index", "public.i")], "index_corrupt"),
        ([wrong("index", "pg_catalog.i", catalog=True)], "index_corrupt"),
        ([wrong("index", "public.i"), wrong("table", "public.t")], "page_corrupt"),
        ([wrong("table", "public.t"), wrong("table", "pg_catalog.pg_class", catalog=True)], "catalog_corrupt"),
    ],
)
def test_what_is_wrong_on_sound_pages_is_named(found: list[dict[str, Any]], cause: str) -> None:
    named = causes.find(replace(HEALTHY, wrong=tuple(found)))
    assert named.cause == cause
    assert named.evidence[0][0] == "structure"


def test_the_index_that_is_wrong_reaches_the_remedy() -> None:
    broken = replace(HEALTHY, wrong=(wrong("index", "public.i"),), structure="pg_amcheck found 1 wrong")
    assert assemble(broken, causes.find(broken), None, None)["facts"]["wrong_indexes"] == ["public.i"]


def test_a_healthy_database_says_how_much_of_it_was_read() -> None:
    pages = {"scanned": 1_800_000_000, "total": 12_000_000_000, "complete": False, "catalog_read": True}
    found = causes.find(replace(HEALTHY, pages=pages, structure="could not be checked: no amcheck"))
    assert found.healthy
    assert found.summary["en"].endswith("the pages read are sound: 1.8 of 12.0 GB were read")
    assert found.summary["pt"].endswith("foram lidos 1,8 de 12,0 GB")
    told = dict(found.evidence)
    assert told["pages read on disk"] == "1.8 of 12.0 GB, another part each time; all: -e database_page_budget=3600"
    assert told["structure"] == "could not be checked: no amcheck"
    whole = causes.find(HEALTHY)
    assert "read are sound" in whole.summary["en"]
    assert not whole.read
    assert dict(causes.find(replace(HEALTHY, pages=None)).evidence)["pages read on disk"] == "none"


@pytest.mark.parametrize(
    ("asked", "lately", "given"), [(2.0, False, 2.0), (2.0, True, WHOLE_BUDGET_S), (0.0, True, 0.0), (9e9, True, 9e9)]
)
def test_all_pages_are_read_once_the_server_has_met_a_bad_one(asked: float, lately: bool, given: float) -> None:
    assert page_budget(asked, server(checksums_failed_lately=lately)) == given


RESTORE = {"id": "r", "step": "fenced", "old_volume": VOLUME.name, "new_volume": "new"}


def test_what_keeps_a_restore_that_serves_from_being_closed_is_mended_first() -> None:
    held = {**RESTORE, "new_volume": VOLUME.name, "step": "served", "held_up": "archiving", "reason": "read-only"}
    failing = server(archive_failing=True)
    assert causes.find(replace(HEALTHY, server=failing, restore=held)).cause == "archive_failing"
    assert (
        causes.find(replace(HEALTHY, server=failing, restore={**held, "held_up": None})).cause == "restore_unfinished"
    )
    mended = causes.find(replace(HEALTHY, restore=held))
    assert mended.cause == "restore_unfinished"
    assert ("held up by", "read-only") in mended.evidence
    # What the restore starts by itself, or another restore would have to mend, is no reason to leave it.
    assert causes.find(replace(seen("stopped"), restore=held)).cause == "restore_unfinished"


@pytest.mark.parametrize(
    ("step", "wish", "cause", "refused"),
    [
        ("archiving", diagnosis.Wish(undo="RUN-1"), "undo_wanted", False),
        ("archiving", diagnosis.Wish(), "archive_failing", False),
        # Its timeline is in no repository yet: what keeps it out is mended first, and the wish told to wait.
        ("served", diagnosis.Wish(undo="RUN-1"), "archive_failing", True),
    ],
)
def test_a_restore_that_cannot_be_closed_can_be_gone_back_behind_once_it_is_archived(
    step: str, wish: diagnosis.Wish, cause: str, refused: bool
) -> None:
    restore = {**RESTORE, "new_volume": VOLUME.name, "step": step, "held_up": "checked"}
    looked = replace(HEALTHY, server=server(archive_failing=True), restore=restore)
    finding = diagnosis.wished(causes.find(looked), looked, wish)
    assert finding.cause == cause
    assert (diagnosis.refused_wish(finding, looked, wish) is not None) is refused


@pytest.mark.parametrize(
    ("base", "changes", "cause"),
    [
        ("healthy", {}, "restore_abandoned"),
        ("stopped", {}, "restore_unfinished"),
        ("page_corrupt_read", {}, "restore_unfinished"),
        ("healthy", {"new_volume": VOLUME.name, "step": "switched"}, "restore_unfinished"),
    ],
)
def test_an_unfinished_restore_counts_as_far_as_it_is_needed(base: str, changes: dict[str, str], cause: str) -> None:
    assert causes.find(replace(seen(base), restore={**RESTORE, **changes})).cause == cause


def test_every_cause_has_words_in_both_languages() -> None:
    for english, portuguese in words.SUMMARIES.values():
        assert english != portuguese
    assert set(words.BELONGS_TO) | words.RESTORED <= set(words.SUMMARIES)


def test_a_refused_plan_refuses_the_run_and_keeps_the_cause() -> None:
    lost = replace(HEALTHY, volume=replace(VOLUME, present=False))
    built = assemble(lost, causes.find(lost), None, {"en": "the repository is empty", "pt": "o repositório está vazio"})
    assert built["cause"] == "volume_lost"
    assert built["refuse"]["reason"]["en"] == "the repository is empty"
    assert not built["healthy"]


def test_an_env_that_lacks_a_variable_is_refused_naming_the_runbook_for_it() -> None:
    with pytest.raises(WhatsAgentError) as told:
        env_file.require({}, ["DB_HOST"], "/opt/whats_agent/.env")
    bad = Observed(database="", env_error=told.value.message, env_error_pt=told.value.details["pt"])
    diagnosis = check_diagnosis(assemble(bad, causes.find(bad), None, None), "database")
    planned = decide(diagnosis, [], Situation("box", BreakerState("database"), {}, "", 0, None, dry_run=False))
    assert planned.outcome == "refused"
    assert planned.reason is not None
    assert "/opt/whats_agent/.env lacks DB_HOST" in planned.reason["en"]
    assert "/opt/whats_agent/.env não tem DB_HOST" in planned.reason["pt"]
    assert all("playbooks/recover_config.yml" in planned.reason[language] for language in ("en", "pt"))


LOG = """\
2026-11-24 14:00:00.000 UTC [7] XX001 ERROR:  invalid page in block 3 of relation base/16485/16524
2026-11-24 14:10:00.000 UTC [7] 58P01 LOG:  database system is ready
2026-11-24 14:10:01.000 UTC [9] 53100 ERROR:  could not extend file "base/1/2": No space left on device
        at the end of a line that has no time
"""


def test_signs_are_read_since_the_last_start_only() -> None:
    since = parse_docker_time("2026-11-24T14:05:00.123456789Z")
    assert [s.sign for s in read_signs(LOG, since)] == ["disk_full"]
    assert [(s.sign, s.detail) for s in read_signs(LOG, None)] == [
        ("invalid_page", "base/16485/16524"),
        ("disk_full", ""),
    ]


def test_the_entry_points_words_count_without_a_time() -> None:
    since = parse_docker_time("2026-11-24T14:05:00Z")
    log = LOG + "whats-postgres: the data directory is empty: restore it, or initialise it on purpose\n"
    assert [s.sign for s in read_signs(log, since)] == ["disk_full", "empty"]


def test_dockers_zero_time_is_none() -> None:
    assert parse_docker_time("0001-01-01T00:00:00Z") is None
    assert parse_docker_time("") is None


def test_limits_decide_from_where_on_something_is_a_cause() -> None:
    limits = causes.limits_of({"blocked_after": 1, "slot_limit_mb": 16, "low_space_mb": 0})
    waiting = {**BLOCKER, "idle_s": 2.0, "waited_s": 2.0}
    assert causes.find(replace(HEALTHY, server=server(blockers=(waiting,))), limits).cause == "blocked"
    held = {**SLOT, "held": 17 * 1024**2}
    assert causes.find(replace(HEALTHY, server=server(slots=(held,))), limits).cause == "slot_holding_wal"
    assert causes.find(replace(HEALTHY, volume=replace(VOLUME, free=1000)), limits).cause == "healthy"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"volume": replace(VOLUME, version="16")}, "pg_upgrade"),
        ({"server": server(databases=("postgres",))}, "target_time"),
    ],
)
def test_what_only_a_person_can_decide_is_refused_with_what_to_do(changes: dict[str, Any], says: str) -> None:
    broken = replace(HEALTHY, **changes)
    built = assemble(broken, causes.find(broken), None, None)
    assert says in built["refuse"]["reason"]["en"]
    assert says in built["refuse"]["reason"]["pt"]


def test_of_a_server_that_dies_again_and_again_the_last_words_count() -> None:
    stamps = ("18:04:43.969", "18:05:29.968")
    over = LogSign("disk_full", f"2026-11-24 {stamps[0]} UTC [11] 53100 PANIC:  No space left on device")
    now = LogSign(
        "bad_configuration", f'2026-11-24 {stamps[1]} UTC [6] F0000 FATAL:  configuration file "x" contains errors'
    )
    dying = replace(
        HEALTHY, container=container(status="restarting", restart_count=3, exit_code=1), server=None, signs=(over, now)
    )
    assert causes.find(dying).cause == "config_refused"
    assert (
        causes.find(replace(dying, signs=(replace(now, line=now.line.replace(stamps[1], stamps[0])), over))).cause
        == "disk_full"
    )
    refused = LogSign("wrong_major", "whats-postgres: the data directory belongs to PostgreSQL 16, this is 17")
    assert causes.find(replace(dying, signs=(refused,))).cause == "crash_loop"


def test_between_two_deaths_a_server_is_not_starting() -> None:
    panic = LogSign(
        "checkpoint_lost", "2026-11-24 18:05:56.707 UTC [19] XX000 PANIC:  could not locate a valid checkpoint record"
    )
    between = replace(
        HEALTHY,
        container=container(status="running", restart_count=2),
        uptime=1.0,
        server=None,
        connection_error="No such file or directory",
        signs=(panic,),
    )
    assert causes.find(between).cause == "startup_damaged"
    assert causes.find(replace(between, signs=())).cause == "starting"
    replaying = "FATAL: the database system is not yet accepting connections"
    assert causes.find(replace(between, connection_error=replaying)).cause == "starting"


AWAY = {"mode": "async", "status": "exited", "restarts": 0, "uptime": 9000.0}
ITS_SLOT = {"slot_name": "whats_agent_receiver", "active": False, "wal_status": "reserved", "held": 0, "idle_s": 900.0}


@pytest.mark.parametrize(
    ("receiver", "slot", "changes", "cause"),
    [
        pytest.param(AWAY, ITS_SLOT, {}, "receiver_stopped", id="stopped"),
        pytest.param(
            {**AWAY, "status": "missing", "uptime": None}, None, {}, "receiver_stopped", id="removed, slot and all"
        ),
        pytest.param({**AWAY, "status": "running"}, ITS_SLOT, {}, "receiver_stopped", id="runs and does not follow"),
        pytest.param(
            {**AWAY, "status": "restarting", "restarts": 9}, ITS_SLOT, {}, "receiver_stopped", id="dies for ever"
        ),
        pytest.param(
            {**AWAY, "status": "running", "restarts": 9, "uptime": 1.0},
            None,
            {"uptime": 900.0},
            "receiver_stopped",
            id="makes no slot",
        ),
        pytest.param(AWAY, {**ITS_SLOT, "held": 3 * 1024**3}, {}, "receiver_stopped", id="before its slot is dropped"),
        pytest.param({**AWAY, "status": "running"}, {**ITS_SLOT, "active": True}, {}, "healthy", id="follows"),
        pytest.param({**AWAY, "status": "restarting"}, {**ITS_SLOT, "idle_s": 40.0}, {}, "healthy", id="coming back"),
        pytest.param({**AWAY, "status": "running", "uptime": 2.0}, None, {}, "healthy", id="first start"),
        pytest.param(AWAY, ITS_SLOT, {"receiver_bypassed": True}, "receiver_bypassed", id="let go without it"),
        pytest.param({**AWAY, "mode": "sync"}, ITS_SLOT, {"waiting_commits": 1}, "commits_waiting", id="waited for"),
        pytest.param(None, None, {}, "healthy", id="none wanted"),
    ],
)
def test_a_receiver_that_does_not_follow_is_told_before_its_wal_is_needed(
    receiver: dict[str, Any] | None, slot: dict[str, Any] | None, changes: dict[str, Any], cause: str
) -> None:
    changed = replace(HEALTHY, receiver=receiver, server=server(slots=(slot,) if slot else (), **changes))
    assert causes.find(changed).cause == cause


@pytest.mark.parametrize(
    ("mode", "line"), [("async", "[receive, async]"), ("sync", "[receive, sync]"), ("off", "[serve]")]
)
def test_how_a_receiver_follows_is_read_from_the_compose_file(mode: str, line: str) -> None:
    assert mode_of(f"services:\n  wal_receiver:\n    command: {line}\n    user: x\n") == mode
