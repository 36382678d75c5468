# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Callback: print a runbook's course as an operator reads it."""

from __future__ import annotations

DOCUMENTATION = """
name: runbook
type: stdout
short_description: Print diagnosis, plan, steps, outcome and next step of a runbook
version_added: 0.1.0
description:
  - Prints what an operator on call wants to read, in Portuguese or English by locale, and is quiet about the rest.
  - Other playbooks get one line per task that changed something or took long, and a line per host at the end.
  - A failure is one line. With C(-v) it is Ansible's own output.
  - Whatever is printed, with C(-v) too, first loses what has the name or the shape of a secret.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
"""

import functools
import locale
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ansible.constants as C  # noqa: N812 (ansible-core's own name for it)
import ansible.module_utils
from ansible.plugins.callback.default import CallbackModule as Default

# As modules see it through ansible.cfg; a callback is imported before anything has read that.
_SHARED = str(Path(__file__).resolve().parents[2] / "module_utils")
if _SHARED not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_SHARED)

from ansible.module_utils.whats_agent.redact import redact, redact_text

if TYPE_CHECKING:
    from ansible.executor.stats import AggregateStats
    from ansible.executor.task_result import CallbackTaskResult
    from ansible.playbook import Playbook
    from ansible.playbook.play import Play
    from ansible.playbook.task import Task
    from ansible.utils.display import Display

SLOW = 5.0  # seconds after which a running task is named, and again at growing distances
SLOW_ITEM = 1.0  # seconds per item from which on a loop's items are told, with what is left
WORDS = {
    "en": {
        "left": ", {s} s left",
        "dry": "DRY RUN: nothing is changed",
        "run": "run {id}",
        "takeover": "took over from run {id}, whose holder died",
        "held": "note: the host is held by {who}",
        "diagnosis": "Diagnosis",
        "plan": "Plan",
        "step": "Step",
        "would": "would",
        "last": "last time {s} s",
        "first": "never done here before",
        "destroys": "DESTROYS, needs consent",
        "consented": "consented",
        "loses": "would be lost: {what}",
        "confirm": "confirm={hash}",
        "done": "done in {s} s",
        "failed": "failed after {s} s",
        "gone": "the symptom is gone, verifying",
        "verify": "Verify",
        "outcome": "Outcome",
        "running": "still running",
        "unreachable": "unreachable",
        "nohosts": "no host matched",
        "ignored": "ignored",
        "unpredictable": "not predictable",
    },
    "pt": {
        "left": ", faltam {s} s",
        "dry": "SIMULAÇÃO: nada é alterado",
        "run": "execução {id}",
        "takeover": "assumiu a execução {id}, cujo dono morreu",
        "held": "nota: o servidor está ocupado por {who}",
        "diagnosis": "Diagnóstico",
        "plan": "Plano",
        "step": "Passo",
        "would": "iria",
        "last": "da última vez {s} s",
        "first": "nunca feito aqui antes",
        "destroys": "DESTRÓI, precisa de consentimento",
        "consented": "consentido",
        "loses": "seria perdido: {what}",
        "confirm": "confirm={hash}",
        "done": "feito em {s} s",
        "failed": "falhou após {s} s",
        "gone": "o sintoma sumiu, verificando",
        "verify": "Verificação",
        "outcome": "Resultado",
        "running": "ainda em andamento",
        "unreachable": "inalcançável",
        "nohosts": "nenhum servidor correspondeu",
        "ignored": "ignorado",
        "unpredictable": "não previsível",
    },
}


def language() -> str:
    """Return pt or en, as the operator's locale says; WHATS_AGENT_LANG overrides."""
    for name in ("WHATS_AGENT_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name)
        if value:
            return "pt" if value.lower().startswith("pt") else "en"
    return "pt" if (locale.getlocale()[0] or "").lower().startswith("pt") else "en"


def one_line(text: Any) -> str:
    """Return the first line that says something, of a text or of a list of lines."""
    lines = text if isinstance(text, list) else str(text).splitlines()
    return next((str(line).strip() for line in lines if str(line).strip()), "")


def reason_of(result: dict[str, Any]) -> str:
    """Return why a task failed, in one line: the message, and what a command wrote to stderr."""
    message = one_line(result.get("msg") or "failed")
    stderr = one_line(list(reversed(str(result.get("stderr") or "").splitlines())))
    if stderr and stderr not in message:
        message = f"{message}: {stderr}"
    if "results" in result:
        failed = [item for item in result["results"] if item.get("failed")]
        if failed:
            return f"{one_line(failed[0].get('item', ''))}: {reason_of(failed[0])}"
    return message


def hide_secrets(display: Display) -> None:
    """Have everything that Ansible prints on this machine pass redaction, whoever prints it and however verbosely.

    By name and shape only: the values of a target's `.env` are known on that target alone.
    """
    shown = display.display
    if hasattr(shown, "hides_secrets"):
        return

    @functools.wraps(shown)
    def hiding(msg: str, *arguments: Any, **options: Any) -> None:
        shown(redact_text(msg) if isinstance(msg, str) else msg, *arguments, **options)

    hiding.hides_secrets = True  # type: ignore[attr-defined]
    display.display = hiding


class CallbackModule(Default):  # type: ignore[misc]  # ansible-core ships no types
    """The operator's view; with -v the default view."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "runbook"

    def __init__(self) -> None:
        super().__init__()
        hide_secrets(self._display)
        self._language = language()
        self._words = WORDS[self._language]
        self._began = time.monotonic()
        self._several_hosts = False
        self._task: Task | None = None
        self._task_began = 0.0
        self._told: set[str] = set()
        self._held: dict[str, str] = {}
        self._is_runbook = False
        self._printing = threading.Lock()
        self._stopped = threading.Event()
        self._watch: threading.Thread | None = None

    @property
    def _own(self) -> bool:
        return not self._display.verbosity

    def _say(self, text: str, color: str | None = None) -> None:
        with self._printing:
            self._display.display(text, color=color)

    def _where(self, host: str) -> str:
        return f"[{host}] " if self._several_hosts else ""

    # Course ----------------------------------------------------------------------------------------------------------

    def v2_playbook_on_start(self, playbook: Playbook) -> None:
        """Start the clock and the watch over slow tasks."""
        super().v2_playbook_on_start(playbook)
        if self._own:
            self._watch = threading.Thread(target=self._tell_slow, daemon=True, name="slow-task-watch")
            self._watch.start()

    def v2_playbook_on_play_start(self, play: Play) -> None:
        """Name the play, and say at the top that nothing will change when that is so."""
        self._play = play
        # What a play before said of a host says nothing about this one.
        self._told.clear()
        self._held.clear()
        if not self._own:
            super().v2_playbook_on_play_start(play)
            return
        self._is_runbook = any(role.get_name() == "runbook" for role in play.get_roles())
        hosts = play.get_variable_manager()._inventory.get_hosts(play.hosts) if play.get_variable_manager() else []
        self._several_hosts = len(hosts) > 1
        self._say(f"\n{play.get_name().strip()}: {', '.join(host.get_name() for host in hosts)}", C.COLOR_HIGHLIGHT)
        if play.check_mode:
            self._say(self._words["dry"], C.COLOR_WARN)

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """Say so; the callback no_hosts makes a failure of it."""
        self._say(self._words["nohosts"], C.COLOR_SKIP)

    def v2_playbook_on_task_start(self, task: Task, is_conditional: bool) -> None:
        """Remember what runs since when."""
        self._task, self._task_began = task, time.monotonic()
        if not self._own:
            super().v2_playbook_on_task_start(task, is_conditional)

    def v2_playbook_on_handler_task_start(self, task: Task) -> None:
        """Treat handlers as tasks."""
        self._task, self._task_began = task, time.monotonic()
        if not self._own:
            super().v2_playbook_on_handler_task_start(task)

    def _tell_slow(self) -> None:
        """Name a task that runs long, at 5, 15, 45, … seconds, so that silence never looks like a hang."""
        named: tuple[str, float] = ("", 0.0)
        while not self._stopped.wait(1):
            task, began = self._task, self._task_began
            if task is None:
                continue
            elapsed = time.monotonic() - began
            due = named[1] * 3 if named[0] == task._uuid else SLOW
            if elapsed >= due:
                named = (task._uuid, due)
                self._say(f"  … {task.get_name().strip()}: {self._words['running']} ({elapsed:.0f} s)", C.COLOR_VERBOSE)

    # Results ---------------------------------------------------------------------------------------------------------

    def v2_runner_on_ok(self, result: CallbackTaskResult) -> None:
        """Print what the contract says, and what changed."""
        if not self._own:
            super().v2_runner_on_ok(result)
            return
        host, fields = result.host.get_name(), result.result
        if result.task.action.endswith(("runbook_run", "host_lease")):
            self._contract(host, fields)
        elif result.task.action.endswith("debug") and "msg" in fields:
            self._tell_message(host, fields["msg"])
        elif fields.get("changed"):
            seconds = time.monotonic() - self._task_began
            would = f"{self._words['would']}: " if result.task.check_mode else ""
            self._say(f"  {self._where(host)}• {would}{self._name(result.task)} ({seconds:.1f} s)", C.COLOR_CHANGED)
        self._warn(fields)

    def _tell_message(self, host: str, message: Any) -> None:
        lines = message if isinstance(message, list) else str(message).splitlines()
        for line in lines:
            self._say(f"  {self._where(host)}{line}")

    @staticmethod
    def _name(task: Task) -> str:
        return str(task.name or task.action).strip()

    def _warn(self, fields: dict[str, Any]) -> None:
        for warning in fields.get("warnings") or []:
            self._display.warning(one_line(warning.get("msg", warning) if isinstance(warning, dict) else warning))

    def v2_runner_on_failed(self, result: CallbackTaskResult, ignore_errors: bool = False) -> None:
        """One line per failure.

        In a runbook the failure comes back in the step's end and in the outcome, with what is secret on that target hidden;
        the raw one is kept and told only if no outcome follows.
        """
        if not self._own:
            super().v2_runner_on_failed(result, ignore_errors)
            return
        host = result.host.get_name()
        if host in self._told and result.task.action.endswith("assert"):
            return
        note = f" ({self._words['ignored']})" if ignore_errors else ""
        line = f"  {self._where(host)}✗ {self._name(result.task)}: {reason_of(result.result)}{note}"
        if self._is_runbook:
            self._held[host] = line
        else:
            self._say(line, C.COLOR_ERROR)

    def v2_runner_on_unreachable(self, result: CallbackTaskResult) -> None:
        """One line that says which host and why."""
        if not self._own:
            super().v2_runner_on_unreachable(result)
            return
        self._say(
            f"  ✗ {result.host.get_name()} {self._words['unreachable']}: {reason_of(result.result)}",
            C.COLOR_UNREACHABLE,
        )

    def v2_runner_on_skipped(self, result: CallbackTaskResult) -> None:
        """Say nothing about what was not needed; in a dry run, name what it cannot foretell."""
        if not self._own:
            super().v2_runner_on_skipped(result)
        elif result.task.check_mode and "check mode" in str(result.result.get("msg", "")):
            text = f"  {self._where(result.host.get_name())}? {self._name(result.task)}: {self._words['unpredictable']}"
            self._say(text, C.COLOR_SKIP)

    def v2_runner_item_on_ok(self, result: CallbackTaskResult) -> None:
        """Items are told with their task, but those of a long loop that counts (`loop_control: extended`) one by one."""
        if not self._own:
            super().v2_runner_item_on_ok(result)
            return
        loop = result.result.get("ansible_loop")
        elapsed = time.monotonic() - self._task_began
        if loop and elapsed >= SLOW_ITEM * loop["index"]:
            left = (
                ""
                if loop["last"]
                else self._words["left"].format(s=f"{elapsed / loop['index'] * loop['revindex0']:.0f}")
            )
            label = one_line(result.result.get("_ansible_item_label", result.result.get("item", "")))
            percent = f"{100 * loop['index'] / loop['length']:.0f} %"
            where = self._where(result.host.get_name())
            text = f"  {where}… {self._name(result.task)}: {label} {percent} ({loop['index']}/{loop['length']}{left})"
            self._say(text, C.COLOR_VERBOSE)

    def v2_runner_item_on_failed(self, result: CallbackTaskResult) -> None:
        """Items are told with their task."""
        if not self._own:
            super().v2_runner_item_on_failed(result)

    def v2_runner_item_on_skipped(self, result: CallbackTaskResult) -> None:
        """Say nothing about what was not needed."""
        if not self._own:
            super().v2_runner_item_on_skipped(result)

    def v2_runner_retry(self, result: CallbackTaskResult) -> None:
        """A condition that is still waited for is no news; the watch names it when it takes long."""
        if not self._own:
            super().v2_runner_retry(result)

    def v2_on_file_diff(self, result: CallbackTaskResult) -> None:
        """Show differences, when they are asked for, without Ansible's banner."""
        if not self._own:
            super().v2_on_file_diff(result)
            return
        for item in result.result.get("results") or [result.result]:
            if item.get("diff") and item.get("changed"):
                self._say(self._get_diff(item["diff"]).rstrip())

    def v2_playbook_on_include(self, included_file: Any) -> None:
        """Files that are included are no news."""
        if not self._own:
            super().v2_playbook_on_include(included_file)

    def _dump_results(self, result: dict[str, Any], *arguments: Any, **options: Any) -> str:
        """As Ansible dumps a result, without what its field's name says is secret."""
        return str(super()._dump_results(redact(result), *arguments, **options))

    # The run contract ------------------------------------------------------------------------------------------------

    def _contract(self, host: str, fields: dict[str, Any]) -> None:
        where, words = self._where(host), self._words
        if "taken_over" in fields:
            self._say(f"  {where}{words['run'].format(id=fields['run_id'])}", C.COLOR_VERBOSE)
            if fields["taken_over"]:
                self._say(f"  {where}{words['takeover'].format(id=fields['taken_over'])}", C.COLOR_WARN)
            if fields.get("held_by"):
                self._say(f"  {where}{words['held'].format(who=fields['held_by'])}", C.COLOR_WARN)
        if "plan" in fields:
            self._plan(where, fields["plan"])
        if fields.get("gone"):
            self._say(f"  {where}{words['gone']}")
        elif fields.get("proceed"):
            self._say(f"{where}{words['step']} {fields['step']}")
        elif "seconds" in fields and "next" in fields:
            text = words["failed" if fields["error"] else "done"].format(s=fields["seconds"])
            detail = f": {one_line(fields['error'])}" if fields["error"] else ""
            self._say(f"  {where}{text}{detail}", C.COLOR_ERROR if fields["error"] else C.COLOR_OK)
        if isinstance(fields.get("result"), dict):
            self._outcome(where, host, fields["result"])

    def _plan(self, where: str, plan: dict[str, Any]) -> None:
        words, lang = self._words, self._language
        self._say(f"{where}{words['diagnosis']}: {plan['cause']}: {(plan.get('summary') or {}).get(lang, '')}")
        if plan["cause"] != "healthy":
            for item in plan.get("evidence") or []:
                self._say(f"    {where}{item.get('what')}: {one_line(item.get('value', ''))}", C.COLOR_VERBOSE)
        for number, remedy in enumerate(plan["remedies"], start=1):
            if number == 1:
                self._say(f"{where}{words['plan']}")
            took = words["last"].format(s=remedy["last_seconds"]) if remedy["last_seconds"] else words["first"]
            consent = words["consented"] if plan["consented"] else words["destroys"]
            mark = f" [{consent}]" if remedy["destructive"] else ""
            self._say(f"  {where}{number}. {remedy['name']}: {remedy['changes'][lang]} ({took}){mark}")
        if plan.get("loses") and any(remedy["destructive"] for remedy in plan["remedies"]):
            self._say(f"  {where}{words['loses'].format(what=plan['loses'][lang])}", C.COLOR_WARN)
        if plan.get("confirm") and not plan["consented"]:
            self._say(f"  {where}{words['confirm'].format(hash=plan['confirm'])}", C.COLOR_WARN)

    def _outcome(self, where: str, host: str, result: dict[str, Any]) -> None:
        self._told.add(host)
        checks = result.get("checks") or []
        if checks:
            self._say(f"{where}{self._words['verify']}")
        for check in checks:
            mark, color = ("✓", C.COLOR_OK) if check.get("ok") else ("✗", C.COLOR_ERROR)
            self._say(f"  {where}{mark} {check.get('name')}: {one_line(check.get('detail', ''))}", color)
        color = C.COLOR_OK if result["ok"] else C.COLOR_ERROR
        self._say(f"{where}{self._words['outcome']}: {result['message'][self._language]}", color)

    # End -------------------------------------------------------------------------------------------------------------

    def v2_playbook_on_stats(self, stats: AggregateStats) -> None:
        """A line per host."""
        self._stopped.set()
        if self._watch is not None:
            self._watch.join()
        if not self._own:
            super().v2_playbook_on_stats(stats)
            return
        seconds = time.monotonic() - self._began
        for host in sorted(stats.processed):
            counts = stats.summarize(host)
            if host in self._held and host not in self._told:
                self._say(self._held[host], C.COLOR_ERROR)
            # In ansible-playbook's own words, since people and tools (Molecule's idempotence) look for them.
            recap = (
                f"{host}: ok={counts['ok']} changed={counts['changed']} unreachable={counts['unreachable']} "
                f"failed={counts['failures']} skipped={counts['skipped']} rescued={counts['rescued']}"
            )
            bad = counts["failures"] or counts["unreachable"]
            self._say(f"{recap} ({seconds:.1f} s)", C.COLOR_ERROR if bad else C.COLOR_VERBOSE)
