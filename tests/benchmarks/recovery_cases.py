# SPDX-License-Identifier: GPL-3.0-or-later
"""What is measured: each cause that `recover_db.yml` names, how it is brought about, and what is asked of the runbook then."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.benchmarks import recovery_faults as faults
from tests.benchmarks.recovery_report import HEALTHY
from tests.benchmarks.recovery_server import BenchmarkError, Server

RUNBOOK = "playbooks/recover_db.yml"
GOOD = frozenset(["already_healthy", "recovered", "rolled_back"])
# Between the volume's being filled and its being put into service.
HALF_DONE = frozenset(["restored", "carried", "started", "replayed", "verified"])


@dataclass(frozen=True)
class Case:
    """What the diagnosis must call it, how the run must end, and how it is measured.

    `fault` is what inflicts it, where that has another name; `breaks` does it where one fault is not all. `asks` gives what the
    operator asks for, consent included; then nothing is broken. `restores`: the first write is timed, and old volumes are removed
    after, but for `undone_next`. `compares`: pgBackRest alone does the same. `cached`: the repository was read a moment before, at
    the large size only; else, as at night, it has to come from the disk. `receiver`: commits wait for a WAL receiver meanwhile.
    """

    name: str
    fault: str = ""
    outcome: str = "recovered"
    restores: bool = False
    compares: bool = False
    cached: bool = False
    receiver: bool = False
    undone_next: bool = False
    arguments: tuple[str, ...] = ()
    breaks: Callable[[Server], None] | None = None
    asks: Callable[[Server], tuple[str, ...]] | None = None
    puts_right: Callable[[Server], None] | None = None

    @property
    def inflicted_by(self) -> str:
        return self.fault or self.name

    @property
    def ends_well(self) -> bool:
        return self.outcome in GOOD

    def bring_about(self, server: Server) -> None:
        """Break the database; it is broken when this returns."""
        if self.breaks is not None:
            self.breaks(server)
        elif self.name != HEALTHY and self.asks is None:
            faults.inflict(server, self.inflicted_by)

    def put_right(self, server: Server) -> None:
        """After the run: undo what is not the runbook's to mend."""
        faults.put_right(server, self.inflicted_by)
        if self.puts_right is not None:
            self.puts_right(server)


# What takes more than one fault --------------------------------------------------------------------------------------


def consented(server: Server, *arguments: str) -> tuple[str, ...]:
    """Ask for what needs consent, and return the arguments with the one that the plan prints."""
    ran = server.playbook(RUNBOOK, *arguments, check=False)
    found = re.search(r"confirm=([0-9a-z]+-[0-9a-f]+)", ran.output)
    if found is None:
        raise BenchmarkError(f"no consent was asked for with {' '.join(arguments)}:\n{ran.output[-2000:]}")
    return (*arguments, "-e", f"confirm={found[1]}")


def _an_earlier_time(server: Server) -> tuple[str, ...]:
    utc = "clock_timestamp() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'"
    moment = server.sql(f"select to_char({utc})")
    server.sql("insert into benchmark.writes select clock_timestamp() from generate_series(1, 1000)")
    return consented(server, "-e", f"target_time={moment}")


def _behind_it(server: Server) -> tuple[str, ...]:
    return consented(server, "-e", "undo=last")


def _bring_the_dropped_back(server: Server) -> None:
    moment = server.run("cat", "/run/whats_agent_test/before").strip()
    server.playbook(RUNBOOK, *consented(server, "-e", f"target_time={moment}"))
    server.settle_restore()


def _kill_a_restore(server: Server) -> None:
    faults.inflict(server, "volume_lost")
    server.kill_restore(HALF_DONE)


def _find_it_again(server: Server) -> None:
    faults.inflict(server, "control_file_aside")
    server.kill_restore(frozenset(["fenced"]))
    faults.meanwhile(server, "control_file_aside")


def _restore_what_is_unsound(server: Server) -> None:
    faults.inflict(server, "table_unsound")
    if server.playbook(RUNBOOK, check=False).ok:
        raise BenchmarkError("a restore that brings back an unsound table was called recovered")


def _go_on_without_the_receiver(server: Server) -> None:
    faults.inflict(server, "receiver_gone")
    server.playbook(RUNBOOK)
    faults.inflict(server, "receiver_back")


CASES = (
    Case(HEALTHY, outcome="already_healthy"),
    Case("container_stopped"),
    Case("container_missing"),
    Case("container_exited"),
    Case("container_paused"),
    Case("container_outdated"),
    Case("crash_loop"),
    Case("process_stopped"),
    Case("unresponsive", fault="socket_removed"),
    Case("starting", fault="slow_replay"),
    Case("volume_misnamed"),
    Case("credentials_wrong"),
    Case("url_wrong", fault="host_wrong"),
    Case("blocked", arguments=("-e", "database_blocked_after=2")),
    Case("connections_exhausted", fault="connections_leaked"),
    Case("archive_failing", fault="repository_foreign"),
    Case("slot_holding_wal", fault="slot_forgotten", arguments=("-e", "database_slot_limit_mb=16")),
    Case("disk_full", fault="disk_full_scratch"),
    Case("read_only_standby", fault="standby"),
    Case("collation_changed"),
    Case("index_corrupt"),
    Case("engine_down", fault="engine_unreachable", outcome="refused"),
    Case("config_invalid", fault="setting_lost", outcome="refused"),
    Case("config_refused", outcome="refused"),
    Case("wrong_major", outcome="refused"),
    Case("database_missing", fault="database_dropped", outcome="refused", puts_right=_bring_the_dropped_back),
    Case("volume_lost", restores=True, compares=True),
    Case("volume_empty", restores=True, compares=True),
    Case("page_corrupt", restores=True, compares=True),
    Case("catalog_corrupt", restores=True, compares=True),
    Case("control_file_lost", restores=True, compares=True),
    Case("startup_damaged", fault="control_file_damaged", restores=True, compares=True),
    Case("volume_lost", restores=True, compares=True, cached=True),
    Case("restore_unfinished", fault="volume_lost", restores=True, breaks=_kill_a_restore),
    Case("restore_abandoned", fault="control_file_aside", breaks=_find_it_again),
    Case("wrong_data", restores=True, undone_next=True, asks=_an_earlier_time),
    Case("undo_wanted", outcome="rolled_back", restores=True, asks=_behind_it),
    Case("restored_unsound", fault="left_unsound", outcome="refused", breaks=_restore_what_is_unsound),
    Case("commits_waiting", fault="receiver_dead", receiver=True),
    Case("receiver_bypassed", fault="receiver_back", receiver=True, breaks=_go_on_without_the_receiver),
    Case("receiver_stopped", receiver=True),
)


def chosen(only: list[str] | None) -> list[Case]:
    """The cases asked for; going back behind a restore takes that restore."""
    if not only:
        return list(CASES)
    wanted = {*only} | ({"wrong_data"} if "undo_wanted" in only else set())
    return [case for case in CASES if case.name in wanted]
