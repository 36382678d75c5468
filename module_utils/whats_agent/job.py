# SPDX-License-Identifier: GPL-3.0-or-later
"""A job is a run without a ladder: a deployment, say. Same lease, same journal, same outcomes; one step, no verification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import WhatsAgentError
from .journal import run_path
from .report import both
from .run_base import RunBase

if TYPE_CHECKING:
    from collections.abc import Mapping


class Job(RunBase):
    """One job on its target."""

    _removes_state = False

    @property
    def _step(self) -> str:
        return self.about.component

    def open(self, holder: Mapping[str, str]) -> dict[str, Any]:
        """As a run opens; its only step begins at once."""
        opened = super().open(holder)
        if opened["result"] is None:
            self._journal.write("plan", cause=None, remedies=[], outcome=None)
            self._journal.write("step", phase="begin", step=self._step, destructive=False)
        return opened

    def close(self, error: str = "", error_pt: str = "", *, changed: bool = True) -> dict[str, Any]:
        """End the step and the job, and return its result.

        `error` is what stopped it, if something did; `changed` whether anything was seen to change.
        """
        self.renew()
        begun = next(e for e in self._events() if e["event"] == "step")
        seconds = round(self._clock.boottime() - begun["boot"], 1)
        end: dict[str, Any] = {"ok": not error, "changed": changed, "seconds": seconds}
        if error:
            end["error"] = error
        self._journal.write("step", phase="end", step=self._step, **end)
        if self.about.dry_run:
            return self._finish("predicted", reason=both(error, error_pt) if error else None)
        if error:
            return self._finish("acted_not_recovered", reason=both(error, error_pt), escalate=True)
        return self._finish("recovered" if changed else "already_healthy")

    def leave(self, *, changed: bool) -> tuple[dict[str, Any], bool]:
        """End a job that removed all of ours, and remove the state directory with it: lock, journals, secrets.

        Returns the result, and whether the state directory held more than this job's own record.
        """
        own = {run_path(self.settings.state_dir, self.run_id), *self._lock.files}
        held_more = any(path not in own for path in self.settings.state_dir.rglob("*") if not path.is_dir())
        self._removes_state = True
        return self.close(changed=changed or held_more), held_more

    def _give_back(self, result: Mapping[str, Any]) -> None:
        """As any run gives its lease back; one that leaves tells of it first, since nothing is there to tell by later."""
        if not self._removes_state:
            super()._give_back(result)
            return
        self._tell(result)
        try:
            self._lock.remove(self.run_id)
        except OSError as error:
            path = str(error.filename or self.settings.state_dir)
            raise WhatsAgentError(f"cannot remove {path}: {error.strerror}", path=path) from error

    def _count(self, result: Mapping[str, Any]) -> None:
        """Count nothing: a breaker holds recoveries back, and a job is no recovery."""
