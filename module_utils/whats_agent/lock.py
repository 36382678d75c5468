# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's lease lock: one run at a time, whatever the entry point, and no run that stays locked out by a dead one.

`lock.json` is read and written under `flock` on `lock.guard`, so two openings at once cannot both win. A holder proves
that it lives by moving its heartbeat: a reading of this host's boot clock, valid for this boot only. Wall clocks are
never compared. A newcomer that finds a lease watches it: it moved → the holder lives → refused; it stood still for the
time to live → taken over.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError
from .files import ensure_directory, read_json, write_json
from .journal import STATE_DIR, describe_holder

TIME_TO_LIVE = 30.0  # seconds without a heartbeat after which a lease counts as left behind
HEARTBEAT_INTERVAL = 2.0
_WATCH_INTERVAL = 0.2


class LockHeldError(WhatsAgentError):
    """Another run holds the host; the message says who, since when and doing what."""


class LeaseLostError(WhatsAgentError):
    """This run's lease is gone: another run may be acting, so this one must stop at once."""


@dataclass(frozen=True)
class Lease:
    """Who holds the host.

    `beat` is the boot clock's reading (seconds) at the last heartbeat, valid within `boot_id`.
    """

    run: str
    component: str
    user: str
    controller: str
    entry_point: str
    since: str
    boot_id: str
    beat: float
    time_to_live: float = TIME_TO_LIVE

    def describe(self) -> str:
        """Return who holds the lock, in one phrase."""
        return f"run {self.run} ({self.component}) of {describe_holder(asdict(self))}, since {self.since}"


def parse_lease(value: Any) -> Lease | None:
    """Return the lease that a lock file holds; None for no file. A file of another shape is an error, never ignored."""
    if value is None:
        return None
    try:
        return Lease(**{**value, "beat": float(value["beat"])})
    except (TypeError, KeyError, ValueError) as error:
        raise WhatsAgentError(f"lock.json has an unknown shape: {error}", value=value) from error


class HostLock:
    """The lock of one host, by its state directory."""

    def __init__(
        self, state_dir: Path = STATE_DIR, *, time_to_live: float = TIME_TO_LIVE, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """Name the lock; nothing is touched yet."""
        self.path = state_dir / "lock.json"
        self._guard = state_dir / "lock.guard"
        self._time_to_live = time_to_live
        self._clock = clock

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Hold the guard for a read-decide-write. It is held for milliseconds, by whoever runs on this host."""
        while True:
            ensure_directory(self._guard.parent)
            try:
                descriptor = os.open(self._guard, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue  # the state directory was removed this moment
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if self._is_guard(descriptor):
                    yield
                    return
            finally:
                os.close(descriptor)

    def _is_guard(self, descriptor: int) -> bool:
        """Tell whether an open file is the guard that others find: it may have been removed while it was waited for."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._guard.stat())
        except FileNotFoundError:
            return False

    @property
    def files(self) -> tuple[Path, Path]:
        """The lock's own files."""
        return self.path, self._guard

    def read(self) -> Lease | None:
        """Return the present lease, dead or alive. Touches nothing."""
        return parse_lease(read_json(self.path))

    def is_dead(self, lease: Lease) -> bool:
        """Tell whether a lease was left behind: of another boot, or without a heartbeat for the time to live."""
        return lease.boot_id != self._clock.boot_id() or self._clock.boottime() - lease.beat >= lease.time_to_live

    def acquire(self, run_id: str, component: str, holder: Mapping[str, str]) -> Lease | None:
        """Take the lease; return the dead one that was taken over, or None.

        `holder` has `user`, `controller`, `entry_point`. Raises LockHeldError as soon as the present holder shows
        life; waits for at most the time to live while it shows none.
        """
        seen: Lease | None = None
        while True:
            with self._guarded():
                present = self.read()
                if present is None or self.is_dead(present):
                    self._write(
                        Lease(
                            run=run_id,
                            component=component,
                            user=holder["user"],
                            controller=holder["controller"],
                            entry_point=holder["entry_point"],
                            since=self._clock.rfc3339(),
                            boot_id=self._clock.boot_id(),
                            beat=self._clock.boottime(),
                            time_to_live=self._time_to_live,
                        )
                    )
                    return present
            if seen is not None and (present.run, present.beat) != (seen.run, seen.beat):
                raise LockHeldError(
                    f"another run holds this host: {present.describe()}", holder=asdict(present), run=present.run
                )
            seen = present
            self._clock.sleep(_WATCH_INTERVAL)

    def renew(self, run_id: str, *, time_to_live: float | None = None) -> None:
        """Move the heartbeat. Raises LeaseLostError when the lease is no longer this run's.

        `time_to_live` changes how long the lease may go without one from now on, for a step whose tasks cannot beat.
        """
        with self._guarded():
            present = self._own(run_id)
            self._write(
                replace(
                    present,
                    boot_id=self._clock.boot_id(),
                    beat=self._clock.boottime(),
                    time_to_live=present.time_to_live if time_to_live is None else time_to_live,
                )
            )

    def release(self, run_id: str) -> bool:
        """Give the lease back; return whether this run still held it."""
        with self._guarded():
            present = self.read()
            if present is None or present.run != run_id:
                return False
            self.path.unlink()
            return True

    def remove(self, run_id: str) -> None:
        """Give the lease back by removing the whole state directory. Raises LeaseLostError when it is not this run's.

        It is moved aside in one act, under the guard: another run finds either this lease or no directory at all. What an
        interrupted removal left aside goes too.
        """
        folder = self.path.parent
        with self._guarded():
            self._own(run_id)
            folder.rename(folder.with_name(f"{folder.name}.removed-{run_id}"))
        for aside in folder.parent.glob(f"{folder.name}.removed-*"):
            shutil.rmtree(aside)

    def _own(self, run_id: str) -> Lease:
        """Return this run's lease. Raises LeaseLostError when it is not this run's."""
        present = self.read()
        if present is None or present.run != run_id:
            now = f"it is held by {present.describe()}" if present else "it is gone"
            raise LeaseLostError(f"run {run_id} lost its lease on this host: {now}", run=run_id)
        return present

    def _write(self, lease: Lease) -> None:
        # A reboot makes the content void, so it needs no flush: the rename alone keeps readers whole.
        write_json(self.path, asdict(lease), durable=False)


class Heart:
    """A lease that is kept alive by a thread. `check()` raises once the lease is lost.

    Call it between chunks of work.
    """

    def __init__(self, lock: HostLock, run_id: str, interval: float) -> None:
        """Prepare the thread; `start` beats once and runs it."""
        self._lock = lock
        self._run_id = run_id
        self._interval = interval
        self._stop = threading.Event()
        self._failure: WhatsAgentError | None = None
        self._thread = threading.Thread(target=self._beat, name="lease-heartbeat", daemon=True)

    def start(self) -> None:
        """Beat once, in the caller's thread, so that a lost lease is an error before any work; then keep beating."""
        self._lock.renew(self._run_id)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def check(self) -> None:
        """Raise when the lease could not be renewed: another run may be acting by now."""
        if self._failure is not None:
            raise self._failure

    def _beat(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                self._lock.renew(self._run_id)
            except WhatsAgentError as error:
                self._failure = error
                return


class Idle:
    """What stands in for a heart where there is no run (a module called by hand, a dry run): nothing to lose."""

    def check(self) -> None:
        """Do nothing."""


@contextlib.contextmanager
def heartbeat(
    run_id: str | None,
    state_dir: Path = STATE_DIR,
    *,
    interval: float = HEARTBEAT_INTERVAL,
    clock: Clock = SYSTEM_CLOCK,
) -> Iterator[Heart | Idle]:
    """Keep a run's lease alive during a long module; yields the heart, whose `check()` fences.

    Without a run id it yields a stand-in. On leaving, a lease lost meanwhile is raised, unless the body failed already.

        with heartbeat(module.params["run_id"]) as heart:
            for chunk in work:
                heart.check()
                …
    """
    if not run_id:
        yield Idle()
        return
    heart = Heart(HostLock(state_dir, clock=clock), run_id, interval)
    heart.start()
    try:
        yield heart
    finally:
        heart.stop()
    heart.check()
