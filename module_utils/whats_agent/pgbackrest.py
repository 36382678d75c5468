# SPDX-License-Identifier: GPL-3.0-or-later
"""pgBackRest's commands and what it answers. Nothing here runs anything.

What it says is read with the reserve it deserves: `info` exits 0 with a wrong passphrase, a backup of damaged pages
ends well and carries `error`, and the newest backup is not the one to restore but the newest that was proven.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from .errors import WhatsAgentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STANZA = "main"
PROJECTED = "projected"  # annotation: the message log id up to which the backup surely holds everything
PROVEN = "proven"  # annotation: when a backup was restored in scratch and found right
DISPROVEN = "disproven"  # annotation: when that was tried and failed
BackupType = Literal["full", "diff", "incr"]
WAL_SEGMENT_BYTES = 16 * 1024 * 1024

# Status codes of `info --output=json`.
STATUS_OK = 0
STATUS_MISSING_STANZA_PATH = 1
STATUS_NO_BACKUP = 2
STATUS_MISSING_STANZA_DATA = 3
STATUS_OTHER = 99

# Exit codes as seen with 2.55.1.
EXIT_CHECKSUM = 26
EXIT_SERVER_RUNNING = 38
EXIT_NOT_EMPTY = 40
EXIT_LOCKED = 50
EXIT_NOTHING_TO_RESTORE = 75
# The repository lost a part of a backup, or has another than was written: checksum, format, opening, reading, a missing file, and
# what cannot be decrypted (a flipped bit; with another passphrase no backup would have been found at all).
EXITS_DAMAGED = (EXIT_CHECKSUM, 29, 39, 41, 55, 95)

_PROGRESS = re.compile(r"\((?:bundle \S+, )?(?P<size>[\d.]+)(?P<unit>[KMGT]?B), (?P<percent>[\d.]+)%\)")


# What to do about it, English and Portuguese.
_OTHER_PASSPHRASE = (
    "give the escrowed one as backup_cipher_passphrase and run playbooks/deploy.yml",
    "dê a senha guardada em backup_cipher_passphrase e execute playbooks/deploy.yml",
)
_REFILL = (
    (
        "put its files back from where a copy of it is kept, or name a second repository that has them; "
        "the old volume and the message log are untouched. While the database runs: playbooks/backup.yml -e type=full"
    ),
    (
        "recoloque seus arquivos a partir de uma cópia, ou indique um segundo repositório que os tenha; "
        "o volume antigo e o log de mensagens estão intactos. Com o banco no ar: playbooks/backup.yml -e type=full"
    ),
)
_PROBLEMS_PT = {
    "the repository cannot be opened": f"o repositório não abre com esta senha: {_OTHER_PASSPHRASE[1]}",
    "the repository cannot be read": "o repositório não pode ser lido",
    "the repository is empty": f"o repositório está vazio: não tem a stanza main; {_REFILL[1]}",
    "the repository holds no backup": f"o repositório não tem nenhum backup; {_REFILL[1]}",
}


@dataclass(frozen=True)
class Backup:
    """One backup. `repo` numbers its repository, times are seconds since the epoch, `size` the database's bytes."""

    label: str
    type: str
    repo: int
    start: int
    stop: int
    size: int
    repository_delta: int
    error: bool
    lsn_start: str
    lsn_stop: str
    wal_start: str
    wal_stop: str
    references: tuple[str, ...] = ()
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def proven(self) -> bool:
        """Whether it was restored in scratch, and no later try failed."""
        return PROVEN in self.annotations and DISPROVEN not in self.annotations

    @property
    def full(self) -> str:
        """Return the label of the full backup it stands on."""
        return self.label.partition("_")[0]

    @property
    def timeline(self) -> int:
        """Return the timeline it was taken on."""
        return timeline_of(self.wal_stop)

    def age(self, now: float) -> float:
        """Return the seconds since it ended."""
        return now - self.stop


@dataclass(frozen=True)
class RunningBackup:
    """A backup at work: how many bytes of how many are done (both 0 before it knows)."""

    done: int
    total: int


@dataclass(frozen=True)
class Repository:
    """What `info` says of the stanza: oldest backup first. `keys` are the repositories and their own status codes."""

    status: int
    message: str
    cipher: str
    backups: tuple[Backup, ...]
    wal_min: str
    wal_max: str
    keys: dict[int, int] = field(default_factory=dict)
    messages: dict[int, str] = field(default_factory=dict)
    running: RunningBackup | None = None

    @property
    def problem(self) -> str | None:
        """Say in a line why nothing can be restored from here, or None."""
        if self.status == STATUS_OTHER and _unopened(self.message):
            return f"the repository cannot be opened with this passphrase: {_OTHER_PASSPHRASE[0]}"
        if self.status == STATUS_OTHER:
            return f"the repository cannot be read: {self.message}"
        if self.status in (STATUS_MISSING_STANZA_PATH, STATUS_MISSING_STANZA_DATA):
            return f"the repository is empty: it holds no stanza main; {_REFILL[0]}"
        if self.status == STATUS_NO_BACKUP or not self.backups:
            return f"the repository holds no backup; {_REFILL[0]}"
        return None

    @property
    def problem_pt(self) -> str | None:
        """Say the same in Portuguese."""
        english = self.problem
        if english is None:
            return None
        return next((pt for en, pt in _PROBLEMS_PT.items() if english.startswith(en)), english)

    def of(self, number: int) -> tuple[Backup, ...]:
        """Return one repository's backups, oldest first."""
        return tuple(backup for backup in self.backups if backup.repo == number)

    @property
    def off_host(self) -> bool:
        """Whether a second repository is configured: without one, losing the server is losing the backups."""
        return len(self.keys) > 1


def repository_problem(repository: Repository, number: int) -> str | None:
    """Say in a line what is wrong with one of the repositories, or None."""
    code = repository.keys[number]
    return Repository(code, repository.messages.get(number, ""), "", repository.of(number), "", "").problem


def away(repository: Repository) -> dict[int, str]:
    """Return, by number, what keeps repositories off this host from being reached while another one can be used.

    Such a one is brought back by whoever runs its host. Until then it must not stand in the way of anything here. One that is
    reached and does not open, because of its passphrase, is none of these.
    """
    if not any(code in (STATUS_OK, STATUS_NO_BACKUP) for code in repository.keys.values()):
        return {}
    return {
        number: repository.messages.get(number, "")
        for number, code in sorted(repository.keys.items())
        if number > 1 and code == STATUS_OTHER and not _unopened(repository.messages.get(number, ""))
    }


def takes_backups(repository: Repository) -> bool:
    """Tell whether a backup can be put anywhere: that one holds none yet, or that another is away, is no hindrance."""
    return repository.problem is None or repository.status == STATUS_NO_BACKUP or bool(away(repository))


def told_away(found: Mapping[int, str]) -> str:
    """Say in a line which repositories cannot be reached, and why."""
    return "; ".join(f"repository {number} cannot be reached: {reason}" for number, reason in sorted(found.items()))


def _unopened(message: str) -> bool:
    """Tell a wrong passphrase, which yields noise, from a host whose certificate nobody vouches for."""
    return "FormatError" in message or ("CryptoError" in message and "certificate" not in message)


def _printable(text: str) -> str:
    """Return the first line without what a terminal should not see (a wrong key yields noise)."""
    first = text.strip().splitlines()[0] if text.strip() else ""
    return "".join(c if c.isprintable() else "?" for c in first)[:300]


def parse_info(output: str, stanza: str = STANZA) -> Repository:
    """Read `info --output=json`."""
    try:
        # A wrong passphrase puts noise into the message, control characters included.
        stanzas: list[dict[str, Any]] = json.loads(output, strict=False)
    except ValueError as error:
        said = _printable(output) or "nothing"
        raise WhatsAgentError(f"pgBackRest's info is not JSON but {said}", stdout=output[:400]) from error
    found = next((s for s in stanzas if s.get("name") == stanza), None)
    if found is None:
        return Repository(STATUS_MISSING_STANZA_PATH, "missing stanza path", "", (), "", "")
    repos = found.get("repo") or []
    keys = {int(r["key"]): int(r["status"]["code"]) for r in repos}
    status = int(found["status"]["code"])
    message = found["status"].get("message", "")
    if status != STATUS_OK:
        message = next((r["status"]["message"] for r in repos if r["status"]["code"] == status), message)
    archives = found.get("archive") or []
    return Repository(
        status=status,
        message=_printable(message),
        cipher=found.get("cipher", ""),
        backups=tuple(sorted((_parse_backup(b) for b in found.get("backup") or []), key=lambda b: b.stop)),
        wal_min=min((a["min"] for a in archives if a.get("min")), default=""),
        wal_max=max((a["max"] for a in archives if a.get("max")), default=""),
        keys=keys,
        messages={int(r["key"]): _printable(r["status"].get("message", "")) for r in repos},
        running=_parse_running((found["status"].get("lock") or {}).get("backup") or {}),
    )


def _parse_running(lock: dict[str, Any]) -> RunningBackup | None:
    if not lock.get("held", False):
        return None
    return RunningBackup(done=int(lock.get("size-cplt") or 0), total=int(lock.get("size") or 0))


def _parse_backup(entry: dict[str, Any]) -> Backup:
    archive = entry.get("archive") or {}
    lsn = entry.get("lsn") or {}
    return Backup(
        label=entry["label"],
        type=entry["type"],
        repo=int((entry.get("database") or {}).get("repo-key", 1)),
        start=int(entry["timestamp"]["start"]),
        stop=int(entry["timestamp"]["stop"]),
        size=int(entry["info"]["size"]),
        repository_delta=int((entry["info"].get("repository") or {}).get("delta", 0)),
        error=bool(entry.get("error", False)),
        lsn_start=lsn.get("start") or "",
        lsn_stop=lsn.get("stop") or "",
        wal_start=archive.get("start") or "",
        wal_stop=archive.get("stop") or "",
        references=tuple(entry.get("reference") or ()),
        annotations=dict(entry.get("annotation") or {}),
    )


def candidates(repository: Repository, *, before: float | None = None) -> list[Backup]:
    """Return the backups worth restoring, best first: proven ones newest first, then the unproven without known damage.

    `before` (seconds since the epoch) leaves out those that ended later: a point in time is reached from an older one.
    A backup that holds bad pages, or whose proof failed, is never among them.
    """
    usable = [
        b
        for b in repository.backups
        # pgBackRest names the second in which a backup ended: only the next one is behind its end for sure.
        if not b.error and DISPROVEN not in b.annotations and (before is None or b.stop + 1 <= before)
    ]
    return sorted(usable, key=lambda b: (b.proven, b.stop), reverse=True)


def earliest_time(repository: Repository) -> float | None:
    """Return the earliest point in time that a restore can reach, in seconds since the epoch; None without a usable backup."""
    return min((b.stop + 1.0 for b in candidates(repository)), default=None)


def choose_backup(repository: Repository, *, before: float | None = None) -> Backup:
    """Return the best backup to restore, or fail saying why there is none."""
    if repository.problem:
        raise WhatsAgentError(repository.problem, status=repository.status, pt=repository.problem_pt)
    found = candidates(repository, before=before)
    if found:
        return found[0]
    earliest = earliest_time(repository)
    if before is not None and earliest is not None:
        raise WhatsAgentError(
            f"no backup is older than the wanted time; the earliest reachable is {iso(earliest)}",
            pt=f"nenhum backup é anterior ao momento pedido; o mais antigo alcançável é {iso(earliest)}",
            earliest=iso(earliest),
        )
    labels = ", ".join(b.label for b in repository.backups)
    raise WhatsAgentError(
        f"no backup of the repository is fit to be restored: {labels} hold damaged pages or failed their proof",
        pt=f"nenhum backup do repositório serve: {labels} têm páginas corrompidas ou falharam na prova",
    )


def expirable(repository: Repository, repo: int, keep_full: int) -> bool:
    """Tell whether a repository holds more full backups than it is to keep."""
    return len([b for b in repository.backups if b.repo == repo and b.type == "full"]) > keep_full


def safe_to_expire(repository: Repository, repo: int, keep_full: int) -> bool:
    """Tell whether expiry would leave a proven backup: `proven` by itself does not stop pgBackRest from expiring it."""
    fulls = [b.label for b in repository.backups if b.repo == repo and b.type == "full"]
    kept = set(fulls[-keep_full:])
    return any(b.proven and b.full in kept for b in repository.backups if b.repo == repo)


def iso(epoch: float) -> str:
    """Return a time as `2026-01-31T12:00:00Z`."""
    return datetime.fromtimestamp(epoch, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_progress(line: str) -> tuple[str, float] | None:
    """Read a progress line of backup or restore at detail level: what was done so far in per cent, or None."""
    match = _PROGRESS.search(line)
    return (match["size"] + match["unit"], float(match["percent"])) if match else None


# Commands ------------------------------------------------------------------------------------------------------------


def _argv(command: str, *options: str) -> list[str]:
    return ["pgbackrest", f"--stanza={STANZA}", *options, command]


def info_argv() -> list[str]:
    """Return the command that lists the repository as JSON."""
    # What it warns of would stand before the JSON.
    return _argv("info", "--output=json", "--log-level-console=error")


def stanza_create_argv() -> list[str]:
    """Return the command that prepares the repository; it changes nothing when that is done."""
    return _argv("stanza-create")


def check_argv(timeout_s: int = 60) -> list[str]:
    """Return the command that proves archiving: a segment is switched and must arrive."""
    return _argv("check", f"--archive-timeout={timeout_s}")


def backup_argv(kind: BackupType, repo: int, annotations: Mapping[str, str], arrival_s: int) -> list[str]:
    """Return the command that takes a backup into a repository, telling each file with its share on standard output.

    `arrival_s`: for how long it waits for the WAL that makes the backup whole to reach the repository.
    """
    how = [f"--archive-timeout={arrival_s}", "--log-level-console=detail", "--no-expire-auto"]
    notes = [f"--annotation={key}={value}" for key, value in sorted(annotations.items())]
    return _argv("backup", f"--repo={repo}", f"--type={kind}", *how, *notes)


def expire_argv(repo: int, keep_full: int) -> list[str]:
    """Return the command that removes all full backups but the newest `keep_full`, and what stands on those removed.

    How many stay is said here, whatever the configuration says of that repository: `safe_to_expire` judged by this number.
    """
    keep = [f"--repo{repo}-retention-full={keep_full}", f"--repo{repo}-retention-full-type=count"]
    return _argv("expire", f"--repo={repo}", *keep)


def annotate_argv(label: str, repo: int, key: str, value: str) -> list[str]:
    """Return the command that writes an annotation onto a backup; an empty value removes it."""
    return _argv("annotate", f"--repo={repo}", f"--set={label}", f"--annotation={key}={value}")


def restore_argv(label: str, repo: int, *, delta: bool, target_time: str | None = None) -> list[str]:
    """Return the command that restores a named backup into the data directory.

    It restores as a standby: that replays all there is and then waits, where `default` would promote at a hole in the WAL
    without a word. With `target_time` (offset required) replay pauses there; where the WAL ends before it, the standby
    waits, where `--type=time` would have the server die.
    """
    options = [f"--repo={repo}", f"--set={label}", "--log-level-console=detail", "--type=standby"]
    if delta:
        options.append("--delta")
    if target_time is not None:
        options += [
            f"--recovery-option=recovery_target_time={target_time}",
            "--recovery-option=recovery_target_action=pause",
        ]
    return _argv("restore", *options)


def archive_get_argv(segment: str, destination: str) -> list[str]:
    """Return the command that fetches one WAL segment."""
    return [*_argv("archive-get", "--no-archive-async"), segment, destination]


def repo_ls_argv(path: str, repo: int) -> list[str]:
    """Return the command that lists a folder of a repository as JSON, recursively."""
    return ["pgbackrest", f"--repo={repo}", "repo-ls", path, "--recurse", "--output=json", "--log-level-console=error"]


def repo_rm_argv(path: str, repo: int) -> list[str]:
    """Return the command that removes a file from a repository."""
    return ["pgbackrest", f"--repo={repo}", "repo-rm", path]


def repositories(configuration: str) -> list[int]:
    """Return the numbers of the repositories that a pgbackrest.conf names, lowest first."""
    return sorted({int(number) for number in re.findall(r"^repo(\d+)-", configuration, re.MULTILINE)}) or [1]


def kept_full(configuration: str) -> int:
    """Return how many full backups a pgbackrest.conf keeps: what the role was told, the same for all repositories."""
    found = re.search(r"^repo1-retention-full=(\d+)$", configuration, re.MULTILINE)
    if found is None:
        raise WhatsAgentError("pgBackRest's configuration names no retention: run playbooks/deploy.yml")
    return int(found[1])


# WAL -----------------------------------------------------------------------------------------------------------------

_SEGMENT = re.compile(r"(?:^|/)(?P<name>[0-9A-F]{24})(?:-[0-9a-f]{40})?(?:\.\w+)?$")
_LSN = re.compile(r"(?P<high>[0-9A-Fa-f]{1,8})/(?P<low>[0-9A-Fa-f]{1,8})")


def lsn_value(lsn: str) -> int:
    """Return an LSN such as `0/3000158` as a number."""
    match = _LSN.fullmatch(lsn)
    if match is None:
        raise WhatsAgentError(f"{lsn!r} is no LSN")
    return (int(match["high"], 16) << 32) | int(match["low"], 16)


def timeline_of(segment: str) -> int:
    """Return the timeline that a segment's name begins with, 0 for no name."""
    return int(segment[:8], 16) if segment else 0


def lsn_text(value: int) -> str:
    """Return a number as an LSN."""
    return f"{value >> 32:X}/{value & 0xFFFFFFFF:X}"


def segment_start(name: str) -> int:
    """Return the LSN (as a number) at which a segment of 16 MB begins."""
    return (int(name[8:16], 16) << 32) + int(name[16:24], 16) * WAL_SEGMENT_BYTES


def segment_name(timeline: int, lsn: int) -> str:
    """Return the name of the segment that holds an LSN on a timeline."""
    number = lsn // WAL_SEGMENT_BYTES
    per_id = 0x100000000 // WAL_SEGMENT_BYTES
    return f"{timeline:08X}{number // per_id:08X}{number % per_id:08X}"


def archived_segments(listing: str) -> list[str]:
    """Return the segments of a `repo-ls archive/main --recurse --output=json`, sorted."""
    names = {match["name"] for path in json.loads(listing) if (match := _SEGMENT.search(path))}
    return sorted(names)


def archive_times(listing: str) -> dict[str, float]:
    """Return when each segment of such a listing was archived, in whole seconds since the epoch, by its name."""
    return {
        match["name"]: float(entry["time"])
        for path, entry in json.loads(listing).items()
        if (match := _SEGMENT.search(path)) and "time" in entry
    }


def missing_segments(segments: Sequence[str], first: str, timelines: Sequence[int] | None = None) -> list[str]:
    """Return the holes between `first` and the newest archived segment, each timeline by itself."""
    missing = []
    wanted = timelines if timelines is not None else sorted({int(s[:8], 16) for s in segments})
    for timeline in wanted:
        have = {s for s in segments if int(s[:8], 16) == timeline}
        if not have:
            continue
        start = segment_start(first) if int(first[:8], 16) == timeline else segment_start(min(have))
        end = segment_start(max(have))
        missing += [
            name
            for lsn in range(start, end + 1, WAL_SEGMENT_BYTES)
            if (name := segment_name(timeline, lsn)) not in have
        ]
    return missing


def missing_between(segments: Sequence[str], first: str) -> list[str]:
    """Return the holes from `first` to the newest archived segment that no timeline fills, named on `first`'s timeline.

    A timeline whose last segments never reached the archive has no hole of its own; the next one begins behind it.
    """
    have = {s[8:] for s in segments}
    if not have:
        return []
    newest = max(segment_start(f"{first[:8]}{position}") for position in have)
    wanted = range(segment_start(first), newest + 1, WAL_SEGMENT_BYTES)
    return [name for lsn in wanted if (name := segment_name(timeline_of(first), lsn))[8:] not in have]
