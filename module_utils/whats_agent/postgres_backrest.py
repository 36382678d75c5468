# SPDX-License-Identifier: GPL-3.0-or-later
"""Run pgBackRest for one stack: in the database's container while that runs, else in a container of its own."""

from __future__ import annotations

import contextlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from . import env_file, pgbackrest, postgres_repository
from .clock import SYSTEM_CLOCK, Clock
from .docker_host import DockerHost, ExecResult
from .errors import WhatsAgentError
from .postgres_host import DATA_DIR, DatabasePlace, database, one_shot_options, repository_mounts
from .postgres_timeline import TimelinePath

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .compose import ComposeProject, ServiceConfig
    from .pgbackrest import Backup, BackupType, Repository, RunningBackup

RESTORE_LABEL = "whats_agent.restore"  # on containers and volumes of a restore or a proof: the id it belongs to
# Replay that stands still this long has ended, wherever it is. Fetching a segment while a repository is away takes pgBackRest 10 s,
# and longer on a busy server; over HTTP, which it tries again and again, about 40 s.
STALL_S, STALL_OVER_HTTP_S = 30.0, 90.0
# Of a server in recovery nothing is asked: it has no WAL of its own.
_TIMELINE_KNOWN = """
select case when pg_is_in_recovery() then true
  else timeline_id = ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int end
from pg_control_checkpoint()
"""
_TIMELINE_PATH = """
select ('x' || name)::bit(32)::int, pg_read_file('pg_wal/' || name || '.history', 0, 1048576, true)
from left(pg_walfile_name(pg_current_wal_lsn()), 8) as name
"""
_BACKUP_TIMEOUT_S = 6 * 3600
_TAIL_LINES = 12
# For a segment to arrive while another repository is away: pgBackRest waits for that one first (io-timeout), and PostgreSQL a
# minute after it has failed three times. A backup waits for several, one after the other.
_ARRIVAL_S = 120.0
_BACKUP_ARRIVAL_S, _BACKUP_ARRIVAL_AWAY_S = 60, 900


class Backrest:
    """pgBackRest of one stack."""

    def __init__(self, place: DatabasePlace, docker: DockerHost, compose: ComposeProject) -> None:
        """Name the parts; nothing is run yet."""
        self.place = place
        self.docker = docker
        self.compose = compose
        self._service: ServiceConfig | None = None
        self._asking = threading.Lock()

    @property
    def service(self) -> ServiceConfig:
        """Return what compose makes of the postgres service (asked once, whoever asks at the same time)."""
        with self._asking:
            if self._service is None:
                self._service = self.compose.service(self.place.service)
            return self._service

    def forget_service(self) -> None:
        """Ask compose again next time: `.env` has changed."""
        self._service = None

    def run(self, argv: Sequence[str], *, timeout_s: float = 60) -> ExecResult:
        """Run a short command wherever that is possible; return what it answered, whatever its exit code."""
        container = self.docker.container(self.place.project, self.place.service)
        # One that has been restarted may be dying again and again, and take the command with it.
        if container is not None and container.running and container.restart_count == 0:
            with contextlib.suppress(_GoneMeanwhileError):
                return self._execute(container.id, argv, timeout_s)
        return self.run_once(argv, timeout_s=timeout_s)

    def _execute(self, container: str, argv: Sequence[str], timeout_s: float) -> ExecResult:
        try:
            return self.docker.execute(container, argv, timeout=timeout_s)
        except WhatsAgentError as error:
            state = self.docker.inspect_if_present(container)
            if state is None or not state.running or state.restart_count > 0:
                raise _GoneMeanwhileError(error.message) from error
            raise

    def run_once(
        self,
        argv: Sequence[str],
        *,
        volume: str | None = None,
        timeout_s: float = 60,
        on_tick: Callable[[str], None] | None = None,
        restore_id: str = "",
    ) -> ExecResult:
        """Run a command in a container of its own, the data volume mounted if one is named."""
        mounts = repository_mounts(self.service)
        if volume is not None:
            mounts[volume] = {"bind": DATA_DIR, "mode": "rw"}
        return self.docker.run_once(
            self.service.image,
            argv,
            volumes=mounts,
            network="none" if not self.off_host_needed() else "bridge",
            labels={RESTORE_LABEL: restore_id} if restore_id else {},
            timeout=timeout_s,
            on_tick=on_tick,
            options=one_shot_options(),
        )

    def look_into(
        self, volume: str, argv: Sequence[str], *, timeout_s: float = 600, restore_id: str = ""
    ) -> ExecResult:
        """Run a command of the image over a data volume that is mounted read-only."""
        return self.docker.run_once(
            self.service.image,
            argv,
            volumes={volume: {"bind": DATA_DIR, "mode": "ro"}},
            environment={"LC_ALL": "C"},
            labels={RESTORE_LABEL: restore_id} if restore_id else {},
            timeout=timeout_s,
            options=one_shot_options(),
        )

    def configuration(self) -> str:
        """Return pgBackRest's configuration, without its secrets, which lie in another file."""
        source = self.service.binds.get("/etc/pgbackrest")
        if source is None:
            raise WhatsAgentError(
                "the compose file mounts no pgBackRest configuration: run playbooks/deploy.yml",
                pt="o arquivo do compose não monta a configuração do pgBackRest: execute playbooks/deploy.yml",
            )
        path = Path(source[0]) / "pgbackrest.conf"
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            raise WhatsAgentError(
                f"cannot read {path}: {error.strerror}; run playbooks/deploy.yml",
                pt=f"não é possível ler {path}: {error.strerror}; execute playbooks/deploy.yml",
            ) from error

    def repositories(self) -> list[int]:
        """Return the numbers of the configured repositories."""
        return pgbackrest.repositories(self.configuration())

    def here(self, repo: int) -> Path | None:
        """Return where a repository lies on this host, None for one elsewhere."""
        return postgres_repository.folder_of(self.configuration(), repo, self.service.binds)

    def off_host_needed(self) -> bool:
        """Tell whether the configuration names a repository that is reached over the network."""
        return bool(re.search(r"^repo\d+-type=(?!posix)", self.configuration(), re.MULTILINE))

    def stall_s(self) -> float:
        """Return how many seconds replay must stand still until it has ended: fetching may have to give up a repository first."""
        over_http = re.search(r"^repo\d+-type=(s3|azure|gcs)\b", self.configuration(), re.MULTILINE)
        return STALL_OVER_HTTP_S if over_http else STALL_S

    # Looking ---------------------------------------------------------------------------------------------------------

    def info(self) -> Repository:
        """Return what the repository holds. An unreadable one is told by `Repository.problem`, not raised."""
        result = self.run(pgbackrest.info_argv(), timeout_s=60)
        if result.exit_code != 0:
            raise failed(
                "cannot read the backup repository",
                pgbackrest.info_argv(),
                result,
                pt="não é possível ler o repositório de backup",
            )
        return pgbackrest.parse_info(result.stdout)

    def contents(self) -> tuple[Repository, list[str]]:
        """Return what the repository holds and the archived WAL segments, both looked up at the same time.

        Where the database is down, each takes a container of its own. Raises what kept either from being read, the
        repository's own problem first, since then there is no archive to list.
        """
        with ThreadPoolExecutor(max_workers=1) as aside:
            archived = aside.submit(self.archived)
            repository = self.info()
        if repository.problem:
            raise WhatsAgentError(repository.problem, status=repository.status, pt=repository.problem_pt)
        return repository, archived.result()

    def running_backup(self) -> RunningBackup | None:
        """Return the backup that is at work in the database's container now, or None.

        Only there is it seen: pgBackRest's lock lies in the container, also in one that has been restarted.
        """
        container = self.docker.require_running(self.place.project, self.place.service)
        result = self.docker.execute(container.id, pgbackrest.info_argv(), timeout=60)
        if result.exit_code != 0:
            raise failed("cannot ask whether a backup is running", pgbackrest.info_argv(), result)
        return pgbackrest.parse_info(result.stdout).running

    def archived(self) -> list[str]:
        """Return the WAL segments of all repositories, sorted: fetching one asks each repository in turn."""
        return sorted({name for listing in self.archives().values() for name in pgbackrest.archived_segments(listing)})

    def archive_times(self) -> dict[str, float]:
        """Return when each segment was first archived, in whichever repository, in whole seconds since the epoch."""
        first: dict[str, float] = {}
        for listing in self.archives().values():
            for name, moment in pgbackrest.archive_times(listing).items():
                first[name] = min(moment, first.get(name, moment))
        return first

    def archived_at(self) -> float | None:
        """Return when the last of them was archived, in seconds since the epoch."""
        return max(self.archive_times().values(), default=None)

    def archives(self) -> dict[int, str]:
        """Return the archive's listing of each repository that can be read, by its number; none that can is an error."""
        listings: dict[int, str] = {}
        failure = None
        for repo in self.repositories():
            try:
                listings[repo] = self._archive(repo)
            except WhatsAgentError as error:
                failure = error
        if failure is not None and not listings:
            raise failure
        return listings

    def _archive(self, repo: int) -> str:
        """Return an archive's listing. What lies on this host is read where it lies: that needs no container."""
        folder = self.here(repo)
        if folder is not None:
            return postgres_repository.listing(folder / "archive" / pgbackrest.STANZA)
        argv = pgbackrest.repo_ls_argv(f"archive/{pgbackrest.STANZA}", repo)
        result = self.run(argv, timeout_s=120)
        if result.exit_code != 0:
            raise failed("cannot list the archived WAL", argv, result, pt="não é possível listar o WAL arquivado")
        return result.stdout

    # Acting ----------------------------------------------------------------------------------------------------------

    def stanza_create(self) -> None:
        """Prepare the repository; it changes nothing when that is done."""
        self._act(pgbackrest.stanza_create_argv(), "cannot prepare the backup repository", 60)
        self.keep_infos()

    def keep_infos(self) -> None:
        """Keep beside the repository what nothing in it can be read without."""
        repository = postgres_repository.repository_of(self.service.binds)
        if repository is not None:
            postgres_repository.keep(self.place, repository)

    def check(self, timeout_s: int = 60) -> None:
        """Prove that WAL reaches the repository: switch a segment and wait for it there."""
        self._act(pgbackrest.check_argv(timeout_s), "WAL archiving does not work", timeout_s + 30)

    def prove_archiving(self, timeout_s: int = 60, clock: Clock = SYSTEM_CLOCK) -> dict[int, str]:
        """Prove that WAL reaches each repository that can be reached; return those off this host that cannot, with the reason.

        One that is away is somebody else's to bring back. The WAL it lacks waits for it, and it is no reason to call a database
        that serves and is archived here not recovered.
        """
        try:
            self.check(timeout_s)
        except WhatsAgentError:
            away = pgbackrest.away(self.info())
            if not away:
                raise
            self._see_arrive([repo for repo in self.repositories() if repo not in away], clock)
            return away
        return {}

    def _see_arrive(self, repositories: Sequence[int], clock: Clock) -> None:
        """Switch a segment and wait for it in these repositories, as `pgbackrest check` does in all of them or none."""
        with database(self.place, "postgres") as admin:
            admin.execute("select pg_create_restore_point('whats_agent archive check')")
            (segment,) = admin.execute("select pg_walfile_name(pg_switch_wal())").fetchone()
        deadline = clock.boottime() + _ARRIVAL_S
        missing = list(repositories)
        while missing:
            missing = [repo for repo in missing if segment not in pgbackrest.archived_segments(self._archive(repo))]
            if missing and clock.boottime() >= deadline:
                raise WhatsAgentError(
                    f"WAL archiving does not work: {segment} has not reached repository {missing[0]} within {_ARRIVAL_S:.0f} s",
                    pt=f"o arquivamento de WAL não funciona: {segment} não chegou ao repositório {missing[0]} em "
                    f"{_ARRIVAL_S:.0f} s",
                )
            if missing:
                clock.sleep(1)

    def annotate(self, label: str, repo: int, key: str, value: str) -> None:
        """Write an annotation onto a backup."""
        self._act(pgbackrest.annotate_argv(label, repo, key, value), f"cannot annotate the backup {label}", 60)
        self.keep_infos()

    def remove(self, path: str, repo: int) -> None:
        """Remove a file from a repository."""
        self._act(pgbackrest.repo_rm_argv(path, repo), f"cannot remove {path} from repository {repo}", 60)

    def expire(self, repo: int, keep_full: int) -> None:
        """Remove what is older than the newest `keep_full` full backups of a repository."""
        self._act(pgbackrest.expire_argv(repo, keep_full), "cannot expire old backups", 600)
        self.keep_infos()

    def backup(self, kind: BackupType, repo: int, on_percent: Callable[[float], None]) -> Backup:
        """Take a backup into a repository and return it. One of damaged pages is an error, although pgBackRest ends well."""
        container = self.docker.require_running(self.place.project, self.place.service)
        repository = self.info()
        before = {(b.repo, b.label) for b in repository.backups}
        self._have_timeline_known()
        arrival_s = _BACKUP_ARRIVAL_AWAY_S if pgbackrest.away(repository) else _BACKUP_ARRIVAL_S
        argv = pgbackrest.backup_argv(kind, repo, self._projected(), arrival_s)
        lines: list[str] = []

        def on_line(line: str) -> None:
            lines[:] = [*lines[-_TAIL_LINES:], line]
            progress = pgbackrest.parse_progress(line)
            if progress is not None:
                on_percent(progress[1])

        exit_code = self.docker.stream(container.id, argv, on_line, timeout=_BACKUP_TIMEOUT_S)
        if exit_code != 0:
            result = ExecResult(exit_code, "\n".join(lines), "")
            if exit_code == pgbackrest.EXIT_LOCKED:
                raise failed("another backup is running", argv, result, pt="outro backup está em andamento")
            raise failed(f"the {kind} backup failed", argv, result, pt=f"o backup {kind} falhou")
        self.keep_infos()
        new = [b for b in self.info().backups if b.repo == repo and (repo, b.label) not in before]
        if not new:
            raise WhatsAgentError(
                f"the {kind} backup ended well, yet the repository lists no new one",
                pt=f"o backup {kind} terminou bem, mas o repositório não mostra nenhum novo",
            )
        if new[-1].error:
            raise WhatsAgentError(
                f"the backup {new[-1].label} holds damaged pages: recover the database (playbooks/recover_db.yml)",
                pt=f"o backup {new[-1].label} contém páginas danificadas: recupere o banco (playbooks/recover_db.yml)",
                backup=new[-1].label,
            )
        return new[-1]

    def timeline_path(self) -> TimelinePath:
        """Return which timeline the running server is on, and by which way it came there."""
        with database(self.place, "postgres") as admin:
            timeline, history = admin.execute(_TIMELINE_PATH).fetchone()
        return TimelinePath.of(timeline, history or "")

    def _have_timeline_known(self) -> None:
        """Take the first checkpoint of a timeline: until then pg_control names the one before it, and pgBackRest refuses."""
        with database(self.place, "postgres") as admin:
            (known,) = admin.execute(_TIMELINE_KNOWN).fetchone()
            if not known:
                admin.execute("checkpoint")

    def _projected(self) -> dict[str, str]:
        """Return, as an annotation, up to which record of the message log PostgreSQL holds everything now.

        The message log may be pruned up to there once the backup that begins now is proven. Before the first migration
        there is nothing to tell.
        """
        name = env_file.read_env(self.place.env_path)["DB_NAME"]
        with database(self.place, name) as admin:
            if admin.execute("select to_regclass('public.projection')").fetchone()[0] is None:
                return {}
            row = admin.execute("select position from public.projection").fetchone()
        return {pgbackrest.PROJECTED: str(row[0])} if row else {}

    def restore(
        self,
        label: str,
        repo: int,
        volume: str,
        *,
        delta: bool,
        restore_id: str,
        target_time: str | None = None,
        on_percent: Callable[[float], None],
        check: Callable[[], None],
        timeout_s: float = 6 * 3600,
    ) -> None:
        """Restore a named backup into a volume that no server uses."""
        argv = pgbackrest.restore_argv(label, repo, delta=delta, target_time=target_time)

        def tick(container: str) -> None:
            check()
            for line in reversed(self.docker.logs(container, tail=5).splitlines()):
                progress = pgbackrest.parse_progress(line)
                if progress is not None:
                    on_percent(progress[1])
                    return

        result = self.run_once(argv, volume=volume, timeout_s=timeout_s, on_tick=tick, restore_id=restore_id)
        if result.exit_code != 0:
            raise failed(
                f"the restore of backup {label} failed",
                argv,
                result,
                pt=f"a restauração do backup {label} falhou",
            )
        on_percent(100.0)

    def _act(self, argv: Sequence[str], what: str, timeout_s: float) -> None:
        result = self.run(argv, timeout_s=timeout_s)
        if result.exit_code != 0:
            raise failed(what, argv, result)


class _GoneMeanwhileError(Exception):
    """The container ended between being found and being used."""


def failed(what: str, argv: Sequence[str], result: ExecResult, *, pt: str = "") -> WhatsAgentError:
    """Return the error for a failed pgBackRest command: its own first ERROR line, the tail of what it wrote.

    `pt` is `what` in Portuguese.
    """
    lines = [line for line in (result.stdout + "\n" + result.stderr).splitlines() if line.strip()]
    errors = [line.partition("ERROR: ")[2] for line in lines if "ERROR: " in line]
    reason = errors[0] if errors else (lines[-1] if lines else "no message")
    reason = "".join(c if c.isprintable() else "?" for c in reason)
    return WhatsAgentError(
        f"{what}: {reason} (exit {result.exit_code})",
        pt=f"{pt or what}: {reason} (código de saída {result.exit_code})",
        cmd=list(argv),
        rc=result.exit_code,
        stderr="\n".join(lines[-_TAIL_LINES:]),
    )
