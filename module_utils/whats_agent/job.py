# SPDX-License-Identifier: GPL-3.0-or-later
"""A job is a run without a ladder: a deployment, say. Same lease, same journal, same outcomes; one step, no verification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .run_base import RunBase

if TYPE_CHECKING:
    from collections.abc import Mapping


class Job(RunBase):
    """One job on its target."""

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

    def close(self, error: str = "") -> dict[str, Any]:
        """End the step and the job, and return its result; `error` is what stopped it, if something did."""
        self.renew()
        begun = next(e for e in self._events() if e["event"] == "step")
        seconds = round(self._clock.boottime() - begun["boot"], 1)
        failed = {"error": error} if error else {}
        self._journal.write("step", phase="end", step=self._step, ok=not error, seconds=seconds, **failed)
        if self.about.dry_run:
            return self._finish("predicted", reason={"en": error, "pt": error} if error else None)
        if error:
            return self._finish("acted_not_recovered", reason={"en": error, "pt": error}, escalate=True)
        return self._finish("recovered")

    def _count(self, result: Mapping[str, Any]) -> None:
        """Count nothing: a breaker holds recoveries back, and a job is no recovery."""
