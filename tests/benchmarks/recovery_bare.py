# SPDX-License-Identifier: GPL-3.0-or-later
"""What the same recovery takes without this project: the bare tool, and the guide's commands in a script with its sleeps."""

from __future__ import annotations

import secrets
import subprocess
import time
from pathlib import Path

from tests.benchmarks.recovery_faults import inflict
from tests.benchmarks.recovery_server import BenchmarkError, Server

HERE = Path(__file__).resolve().parent
FIRST_WRITE = (HERE / "recovery_first_write.py").read_text(encoding="utf-8")
WRITE_LIMIT_S = 600.0
STACK_SOCKET = "/opt/whats_agent/run/postgres"
BARE_SOCKET = "/run/whats_agent_benchmark"
BARE = "whats_agent_benchmark_bare"

# As somebody types it who knows pgBackRest: newest backup, all WAL, promote at its end. Nothing is checked, nothing is put
# into service, and nothing that the old volume alone holds is carried over.
BARE_RESTORE = f"""
set -eu
image=$1
python3 -c 'import time; print(time.monotonic())'
docker volume create {BARE} >/dev/null
set -- --network none --tmpfs /tmp:mode=1777 --tmpfs /var/spool/pgbackrest:uid=64011,gid=64000,mode=0750 \\
    --volume {BARE}:/var/lib/postgresql/data \\
    --volume /opt/whats_agent/config/pgbackrest:/etc/pgbackrest:ro \\
    --volume /opt/whats_agent/config/postgres:/etc/whats_agent/postgres:ro \\
    --volume /var/backups/whats_agent/pgbackrest:/var/lib/pgbackrest:ro \\
    --volume {BARE_SOCKET}:/var/run/postgresql
docker run --rm "$@" "$image" pgbackrest --stanza=main restore
docker run --detach --name {BARE} --env WHATS_POSTGRES_ARCHIVE=off "$@" "$image" >/dev/null
"""
REMOVE_BARE = (
    f"docker rm --force {BARE} >/dev/null 2>&1; docker volume rm --force {BARE} >/dev/null; rm -rf {BARE_SOCKET}"
)

GUIDE_VOLUME = "whats_agent_pgdata_guide"
GUIDE_FOLDER = "/root/whats_agent_benchmark"
# The database that the guide makes has nothing to do with the repository, so it must not archive into it.
GUIDE_COMPOSE = 'services: {postgres: {environment: {WHATS_POSTGRES_ARCHIVE: "off"}}}\n'
COMPOSE = ("docker", "compose", "--file", "/opt/whats_agent/compose.yml")


# What a file holds leaves the cache once it is written; root may do so for any file.
FORGET = """
import os, pathlib
os.sync()
for path in pathlib.Path("/var/backups/whats_agent/pgbackrest").rglob("*"):
    if path.is_file():
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
"""


def forget_repository(server: Server) -> None:
    """Have the repository read from the disk by whoever reads it next, as when nobody has read a backup since it was proven."""
    server.run("python3", "-", stdin=FORGET)


def first_write(server: Server, folder: str, *, now: bool) -> subprocess.Popen[str]:
    """Begin to look for the first write; `written_at` tells when it was."""
    last = ("now",) if now else ()
    return server.start("python3", "-", folder, str(WRITE_LIMIT_S), *last, script=FIRST_WRITE)


def written_at(poller: subprocess.Popen[str]) -> float:
    """When the first write was (CLOCK_MONOTONIC of this machine and of the server, which share their kernel)."""
    output, problem = poller.communicate(timeout=WRITE_LIMIT_S + 60)
    if poller.returncode != 0:
        raise BenchmarkError(f"no write was seen: {problem.strip()[-500:]}")
    return float(output)


def bare_restore(server: Server, *, cached: bool = False) -> float:
    """Restore the newest backup and all archived WAL with pgBackRest alone; seconds from the command to the first write.

    `cached`: from a repository that was read a moment before.
    """
    image = server.run("docker", "inspect", "--format", "{{.Config.Image}}", server.postgres()).strip()
    try:
        server.run("install", "-d", "-o", "64011", "-g", "64000", "-m", "0770", BARE_SOCKET)
        if not cached:
            forget_repository(server)
        poller = first_write(server, BARE_SOCKET, now=True)
        try:
            began = float(server.run("sh", "-s", image, stdin=BARE_RESTORE).split()[0])
            return written_at(poller) - began
        finally:
            poller.kill()
            poller.wait()
    finally:
        server.run("sh", "-c", REMOVE_BARE)


def prepare_guide(server: Server) -> None:
    """Put the guide's script there, and take the nightly dump that it restores from; that time is not counted."""
    server.run("mkdir", "-p", GUIDE_FOLDER)
    for name in ("recovery_guide.sh", "recovery_guide_restore.sh"):
        text = (HERE / name).read_text(encoding="utf-8")
        server.run("sh", "-c", f"cat > {GUIDE_FOLDER}/{name} && chmod 0755 {GUIDE_FOLDER}/{name}", stdin=text)
    server.run("sh", "-c", f"cat > {GUIDE_FOLDER}/compose.override.yml", stdin=GUIDE_COMPOSE)
    dump = f"docker exec {server.postgres()} pg_dump -U postgres whats_agent | gzip -1 > {GUIDE_FOLDER}/latest.sql.gz"
    server.run("bash", "-o", "pipefail", "-c", dump)


def _guide(server: Server, case: str, *compose_files: str) -> float:
    files = ":".join(("/opt/whats_agent/compose.yml", *compose_files))
    began = time.monotonic()
    said = server.run("env", f"COMPOSE_FILE={files}", f"{GUIDE_FOLDER}/recovery_guide.sh", case)
    seconds = time.monotonic() - began
    with (server.work / "guide.log").open("a", encoding="utf-8") as log:
        log.write(f"recovery_guide.sh {case}  # {seconds:.1f} s\n{said}\n")
    return seconds


def guide_stopped(server: Server) -> float:
    """Seconds of the guide's way for a stopped container."""
    inflict(server, "container_stopped")
    return _guide(server, "container_stopped")


def guide_restore(server: Server) -> float:
    """Seconds of the guide's way for lost or damaged data. It works on a volume of its own, and all is put back after."""
    kept = server.env()["DB_VOLUME"]
    rows = server.sql("select count(*) from messages where phone_number_id = 'benchmark'")
    server.run(*COMPOSE, "stop", "worker")
    server.run("docker", "rm", "--force", server.postgres())
    _use_volume(server, GUIDE_VOLUME)
    try:
        seconds = _guide(server, "restore", f"{GUIDE_FOLDER}/compose.override.yml")
        restored = server.sql("select count(*) from messages where phone_number_id = 'benchmark'")
        if restored != rows:
            raise BenchmarkError(f"the guide's restore brought {restored} of {rows} rows: its time means nothing")
        return seconds
    finally:
        server.run(*COMPOSE, "stop", "worker", "postgres")
        server.run(*COMPOSE, "rm", "--force", "postgres")
        _use_volume(server, kept)
        server.run(*COMPOSE, "up", "--detach", "--wait", "postgres", "worker", "app")
        server.run("docker", "volume", "rm", "--force", GUIDE_VOLUME)


def _use_volume(server: Server, volume: str) -> None:
    server.run("sed", "--in-place", f"s/^DB_VOLUME=.*/DB_VOLUME={volume}/", "/opt/whats_agent/.env")


def fill(server: Server, megabytes: int) -> None:
    """Give the database its size, with rows of about 1.1 KB of which nobody is answered; the last tenth after the backup."""
    server.sql(
        "create schema if not exists benchmark;"
        "create table if not exists benchmark.writes (at timestamptz not null default now());"
        "insert into conversations (phone_number_id, wa_id) select 'benchmark', (5521900000000 + n)::text "
        "from generate_series(1, 1000) n on conflict do nothing"
    )
    _grow(server, megabytes * 9 // 10)
    server.sql("checkpoint")
    server.sql("vacuum analyze")
    server.playbook("playbooks/backup.yml", "-e", "type=full", "-e", "prove=true")
    _grow(server, megabytes)
    server.sql("checkpoint")


def _grow(server: Server, megabytes: int) -> None:
    while (present := int(server.sql("select pg_database_size('whats_agent')"))) < megabytes * 10**6:
        rows = min(max((megabytes * 10**6 - present) // 1400, 200), 200_000)
        _add_rows(server, rows)


def _add_rows(server: Server, rows: int) -> None:
    """Messages as long ones are: half of each is random, so that neither TOAST nor the backup makes it nothing."""
    server.sql(
        f"""
        insert into messages (phone_number_id, wamid, conversation_id, direction, type, action, body, payload, sent_at, received_at,
                              log_id)
        select 'benchmark', 'wamid.' || gen_random_uuid(), c.first + n % 1000, 'echo', 'text', 'none',
               md5(random()::text) || repeat(md5(n::text), 3) || md5(random()::text) || repeat(md5(n::text), 9),
               jsonb_build_object('id', gen_random_uuid(), 'token', md5(random()::text), 'text', repeat(md5(n::text), 8)),
               now(), now(), 0
        from generate_series(1, {rows}) n,
             (select min(id) as first from conversations where phone_number_id = 'benchmark') c
        """  # noqa: S608 - a number of our own
    )


def write_wal(server: Server, rows: int) -> None:
    """Add rows since the last backup, so that each recovery has WAL to replay, and have it archived."""
    _add_rows(server, rows)
    marker = secrets.token_hex(4)
    server.sql(f"select pg_logical_emit_message(true, 'benchmark', '{marker}')")
    segment = server.sql("select pg_walfile_name(pg_switch_wal())")
    deadline = time.monotonic() + 60
    while server.sql("select coalesce(last_archived_wal, '') from pg_stat_archiver") < segment:
        if time.monotonic() > deadline:
            raise BenchmarkError(f"the WAL segment {segment} did not reach the repository within 60 s")
        time.sleep(0.2)
