# SPDX-License-Identifier: GPL-3.0-or-later
"""How a run is told to people: its timings from the journal, and one message in Portuguese and English."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import Text

OUTCOMES: dict[str, Text] = {
    "already_healthy": {"en": "already healthy, nothing changed", "pt": "já estava saudável, nada mudou"},
    "recovered": {"en": "recovered", "pt": "recuperado"},
    "rolled_back": {"en": "rolled back", "pt": "voltou à versão anterior"},
    "acted_not_recovered": {"en": "acted, NOT recovered", "pt": "agiu, NÃO recuperou"},
    "refused": {"en": "refused, nothing changed", "pt": "recusado, nada mudou"},
    "predicted": {"en": "predicted, nothing changed", "pt": "previsto, nada mudou"},
}


def timings(events: Sequence[Mapping[str, Any]], now: float) -> dict[str, float]:
    """Return seconds `{detect, act, verify, total}` of a run from its journal; `now` is the boot clock's reading.

    Detect: from opening to the plan. Act: in the rungs. Verify: from the end of a rung to what follows it.
    """
    opened = next((e["boot"] for e in events if e["event"] == "open"), now)
    planned = next((e["boot"] for e in events if e["event"] == "plan"), None)
    act = verify = 0.0
    begun: float | None = None
    ended: float | None = None
    for event in events:
        if event["event"] == "step" and event.get("phase") == "begin":
            begun = event["boot"]
            if ended is not None:
                verify += event["boot"] - ended
            ended = None
        elif event["event"] == "step" and event.get("phase") == "end" and begun is not None:
            # The step's own seconds: its line is written after the stable window, which belongs to verifying.
            act += event["seconds"]
            begun, ended = None, begun + event["seconds"]
    if begun is not None:
        act += now - begun
    if ended is not None:
        verify += now - ended
    seconds = {"detect": (planned if planned is not None else now) - opened, "act": act, "verify": verify}
    return {name: round(max(0.0, value), 1) for name, value in (*seconds.items(), ("total", now - opened))}


def describe_rpo(rpo: Mapping[str, Any] | None) -> Text | None:
    """Return what was lost, from a verification's `rpo` (`{messages_lost: N, seconds: S, …}`), or None."""
    if not rpo:
        return None
    parts_en, parts_pt = [], []
    if "messages_lost" in rpo:
        parts_en.append(f"{rpo['messages_lost']} acknowledged messages lost")
        parts_pt.append(f"{rpo['messages_lost']} mensagens confirmadas perdidas")
    if rpo.get("seconds") is not None:
        parts_en.append(f"RPO {rpo['seconds']} s")
        parts_pt.append(f"RPO {rpo['seconds']} s")
    if "text" in rpo:
        parts_en.append(str(rpo["text"]["en"]))
        parts_pt.append(str(rpo["text"]["pt"]))
    return {"en": ", ".join(parts_en), "pt": ", ".join(parts_pt)} if parts_en else None


def message(result: Mapping[str, Any]) -> Text:
    """Return the final message of a run's result, one line per language.

    `result` has component, host, outcome, cause, remedy, reason, seconds, rpo, next_step, run, dry_run.
    """
    lines: Text = {}
    words = {
        "en": {"dry": "DRY RUN", "cause": "cause", "remedy": "remedy", "why": "why", "next": "next", "run": "run"},
        "pt": {
            "dry": "SIMULAÇÃO",
            "cause": "causa",
            "remedy": "remédio",
            "why": "motivo",
            "next": "a seguir",
            "run": "execução",
        },
    }
    rpo = describe_rpo(result.get("rpo"))
    for language, word in words.items():
        parts = [f"{result['component']}@{result['host']}: {OUTCOMES[result['outcome']][language]}"]
        if result.get("cause") and result["cause"] != "healthy":
            parts.append(f"{word['cause']} {result['cause']}")
        if result.get("remedy"):
            parts.append(f"{word['remedy']} {result['remedy']}")
        if result.get("reason") and result["outcome"] != "already_healthy":
            parts.append(f"{word['why']}: {result['reason'][language]}")
        seconds = result.get("seconds") or {}
        if result["outcome"] in ("recovered", "rolled_back", "acted_not_recovered"):
            spent = {"en": "detected {detect} s, acted {act} s, verified {verify} s, total {total} s"}
            spent["pt"] = "detecção {detect} s, ação {act} s, verificação {verify} s, total {total} s"
            parts.append(spent[language].format(**seconds))
        elif "total" in seconds:
            parts.append(f"{seconds['total']} s")
        if rpo:
            parts.append(rpo[language])
        if result.get("next_step"):
            parts.append(f"{word['next']}: {result['next_step'][language]}")
        parts.append(f"{word['run']} {result['run']}")
        line = "; ".join(parts)
        lines[language] = f"{word['dry']}: {line} ({word['dry']})" if result.get("dry_run") else line
    return lines


def recommend(result: Mapping[str, Any]) -> Text | None:
    """Return what to do after this outcome, when the plan named nothing else."""
    if result["outcome"] == "acted_not_recovered":
        return {
            "en": "escalate to the DevOps engineer with this run's journal; a rerun is safe",
            "pt": "escale para o engenheiro DevOps com o diário desta execução; executar de novo é seguro",
        }
    if result["outcome"] == "predicted" and result.get("confirm"):
        return {
            "en": f"to do it, run without --check and with -e confirm={result['confirm']}",
            "pt": f"para fazê-lo, execute sem --check e com -e confirm={result['confirm']}",
        }
    if result["outcome"] == "predicted":
        return {"en": "to do it, run without --check", "pt": "para fazê-lo, execute sem --check"}
    return None


def last_step(events: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the rung that ended last, or None."""
    return next((str(e["step"]) for e in reversed(events) if e["event"] == "step" and e.get("phase") == "end"), None)


def unpredictable(ends: Sequence[Mapping[str, Any]]) -> Text | None:
    """Say of a dry run that its step could not be played through, and so is not predictable from there on."""
    failed = next((event for event in ends if not event.get("ok")), None)
    if failed is None:
        return None
    step, why = failed["step"], both(failed.get("error", ""), failed.get("error_pt", ""))
    return {
        "en": f"the step {step} is not predictable beyond this point: {why['en']}",
        "pt": f"o passo {step} não é previsível além deste ponto: {why['pt']}",
    }


def both(error: str, error_pt: str = "") -> Text:
    """Return an error in both languages. One that came without Portuguese is shown in English rather than not at all."""
    return {"en": error, "pt": error_pt or error}


def why_not(
    error: str, ends: Sequence[Mapping[str, Any]], verification: Mapping[str, Any] | None, error_pt: str = ""
) -> Text:
    """Say why a run did not recover: what stopped it, the failed checks, or the failed step."""
    if error:
        return both(error, error_pt)
    failed = [c for c in (verification or {}).get("checks") or [] if not c.get("ok")]
    if failed:
        named = ", ".join(f"{c['name']} ({c.get('detail', '')})" for c in failed)
        return {"en": f"verification failed: {named}", "pt": f"a verificação falhou: {named}"}
    if ends and not ends[-1].get("ok"):
        step, why = ends[-1]["step"], both(ends[-1].get("error", ""), ends[-1].get("error_pt", ""))
        return {"en": f"the step {step} failed: {why['en']}", "pt": f"o passo {step} falhou: {why['pt']}"}
    return {"en": "nothing verified that it is healthy", "pt": "nada verificou que está saudável"}
