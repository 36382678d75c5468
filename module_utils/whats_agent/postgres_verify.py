# SPDX-License-Identifier: GPL-3.0-or-later
"""Verify that the stack's database serves: as the agent sees it, not as the remedy left it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import env_file, postgres_integrity
from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError
from .pgbackrest import told_away
from .postgres_causes import DEFAULT_LIMITS, Limits, find
from .postgres_host import DATA_DIR, ENV_NAMES, DatabasePlace, application_login, database
from .postgres_integrity import Check
from .postgres_observe import observe
from .postgres_words import HEALTHY

if TYPE_CHECKING:
    from .docker_host import ContainerState, DockerHost
    from .postgres_backrest import Backrest

POLL_S = 0.1
# Commits that go on without their receiver are what the remedy for a receiver that does not come back is after. That commits
# still wait for it is no verdict: it may be just coming back, and the probe's row tells whether they go through.
# Nor is what a restore has left for a person to decide: what this run was about is mended beside it.
SETTLED = frozenset([HEALTHY, "receiver_bypassed", "commits_waiting", "restored_unsound"])


def wait_serving(
    place: DatabasePlace, docker: DockerHost, env: dict[str, str], wait_s: float, clock: Clock = SYSTEM_CLOCK
) -> tuple[ContainerState, str]:
    """Wait until the agent's own login works over TCP; return the container and its address, or fail with the reason."""
    deadline = clock.boottime() + wait_s
    while True:
        container = docker.container(place.project, place.service)
        if container is None:
            reason = "there is no postgres container"
        elif not container.running:
            reason = f"the postgres container is {container.status}"
        else:
            address = next(iter(container.addresses.values()), "")
            reason = application_login(env, address) or ""
            if not reason:
                return container, address
        if clock.boottime() >= deadline:
            raise WhatsAgentError(f"the agent's login does not work: {reason}", reason=reason)
        clock.sleep(POLL_S)


def rows_of(env: dict[str, str], address: str) -> dict[str, int]:
    """Count the rows of each table over a plain connection with the agent's own credentials."""
    import psycopg

    try:
        with psycopg.connect(
            host=address,
            user=env["DB_USER"],
            password=env["DB_PASSWORD"],
            dbname=env["DB_NAME"],
            connect_timeout=3,
            autocommit=True,
            application_name="whats_agent_verify",
        ) as connection:
            return postgres_integrity.row_counts(connection)
    except psycopg.Error as error:
        raise WhatsAgentError(f"the agent's tables cannot be read: {' '.join(str(error).split())[:200]}") from error


def verify(  # the keywords are each one check more
    backrest: Backrest,
    *,
    wait_s: float = 30,
    archiving: bool = True,
    structure: bool = False,
    limits: Limits = DEFAULT_LIMITS,
    clock: Clock = SYSTEM_CLOCK,
) -> tuple[list[Check], dict[str, int]]:
    """Check login, volume, writability, rows, pages, that no cause is left and, where asked for, archiving and structure."""
    place, docker = backrest.place, backrest.docker
    env = env_file.read_env(place.env_path)
    env_file.require(env, ENV_NAMES, str(place.env_path))
    container, address = wait_serving(place, docker, env, wait_s, clock)
    checks = [Check("login", True, f"as {env['DB_USER']} over TCP")]
    volume = container.mounts.get(DATA_DIR)
    checks.append(Check("volume", volume == env["DB_VOLUME"], f"{volume}, and .env names {env['DB_VOLUME']}"))
    with database(place, "postgres") as admin:
        standby = admin.execute("select pg_is_in_recovery()").fetchone()[0]
        checks.append(Check("writable", not standby, "a standby" if standby else "not in recovery"))
        with database(place, env["DB_NAME"]) as inside:
            checks.append(postgres_integrity.check_pages(admin, inside, env["DB_NAME"]))
    rows = rows_of(env, address)
    detail = ", ".join(f"{table} {count}" for table, count in sorted(rows.items()))
    checks.append(Check("rows", True, detail or "no table yet"))
    settled = SETTLED
    if archiving:
        check, away = _archiving(backrest)
        checks.append(check)
        # PostgreSQL sees that archiving fails as long as one repository is away; that the others get it was just proven.
        settled = SETTLED | {"archive_failing"} if away else SETTLED
    if structure:
        checks.append(postgres_integrity.check_structure(docker, container.id))
    checks.append(_diagnosis(backrest, limits, settled))
    return checks, rows


def _diagnosis(backrest: Backrest, limits: Limits, settled: frozenset[str]) -> Check:
    """Look once more from all sides: a database may serve while what will take it down again is still there."""
    finding = find(observe(backrest.place, backrest.docker, page_budget_s=0), limits)
    return Check("diagnosis", finding.cause in settled, finding.summary["en"])


def _archiving(backrest: Backrest) -> tuple[Check, dict[int, str]]:
    """Judge the archiving; also return the repositories that cannot be reached."""
    try:
        away = backrest.prove_archiving()
    except WhatsAgentError as error:
        return Check("archiving", False, error.message), {}
    told = "a segment was switched and has arrived in the repository"
    return Check("archiving", True, f"{told} on this host; {told_away(away)}" if away else told), away


def as_result(checks: list[Check], rows: dict[str, int]) -> dict[str, Any]:
    """Return the checks in the shape of a verification."""
    return {
        "ok": not postgres_integrity.failures(checks),
        "checks": [check.as_dict() for check in checks],
        "rows": rows,
    }
