# SPDX-License-Identifier: GPL-3.0-or-later
"""Name what is wrong with the configuration, with evidence that shows no secret, and where its content can come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import config_env
from .config_files import CHAIN, ENV, KEY, SECRET, shown
from .config_observe import differing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .config_files import ConfigFile
    from .config_observe import Observed

COMPONENT = "config"
HEALTHY = "healthy"
# The closed list. {names} are the files or services concerned.
SUMMARIES = {
    HEALTHY: ("the configuration is sound, kept, and what the services run with", "a configuração está íntegra, guardada e em uso"),
    "engine_down": ("Docker does not answer", "o Docker não responde"),
    "not_deployed": ("there is no stack on this server", "não há stack neste servidor"),
    "file_missing": ("configuration is missing: {names}", "falta configuração: {names}"),
    "file_invalid": ("configuration is invalid: {names}", "configuração inválida: {names}"),
    "file_changed": ("configuration differs from what was verified: {names}", "configuração difere da verificada: {names}"),
    "attributes_wrong": ("files have another owner or mode: {names}", "arquivos com outro dono ou modo: {names}"),
    "drift": ("services run with another configuration: {names}", "serviços rodam com outra configuração: {names}"),
    "copy_missing": ("no copy of this configuration is kept", "não há cópia guardada desta configuração"),
}  # fmt: skip
BELONGS_TO = {"engine_down": "recover_system.yml"}
_MOST_EVIDENCE = 12


def cause_of(seen: Observed) -> tuple[str, tuple[str, ...]]:
    """Return the cause and the files or services it concerns. What hides the others comes first. Pure."""
    nothing = ENV in seen.missing and not seen.containers and not seen.volumes and seen.copy is None
    concerned: list[tuple[str, bool, Iterable[str]]] = [
        ("engine_down", seen.engine_error is not None, ()),
        ("not_deployed", nothing, ()),
        ("file_missing", bool(seen.missing), seen.missing),
        ("file_invalid", bool(seen.invalid), seen.invalid),
        ("file_changed", bool(seen.changed), seen.changed),
        ("attributes_wrong", bool(seen.attributes), seen.attributes),
        ("drift", bool(seen.drift), (entry.service for entry in seen.drift)),
        ("copy_missing", seen.copy is None, ()),
    ]
    return next(((cause, tuple(dict.fromkeys(names))) for cause, holds, names in concerned if holds), (HEALTHY, ()))


def sources_of(seen: Observed) -> tuple[list[str], list[str]]:
    """Return where the content of the broken files can come from, mildest first, and why the others cannot serve. Pure.

    The controller's rendering serves only where it is of the deployed version: it must agree with every file that is intact,
    and with the last good copy. Otherwise it would be a deployment, which playbooks/deploy.yml is for.
    """
    usable, reasons = [], []
    rendering = seen.rendering
    if rendering is not None:
        reasons += [f"the inventory cannot give it: {why}" for why in rendering.lacks]
        certificates = {CHAIN, KEY} if rendering.makes_certificate else set()
        lacking = [name for name in seen.broken if name not in rendering.files and name not in certificates]
        intact = {name: file for name, file in seen.files.items() if name not in seen.broken}
        other = differing(intact | (seen.copy.files if seen.copy else {}), rendering.files)
        if other:
            reasons.append(f"the working copy and inventory are not those of the deployment: {', '.join(other)} differ")
        elif not lacking and not (seen.copy and certificates & set(seen.broken)):
            usable.append("render")
        elif lacking and not rendering.lacks:
            reasons.append(f"the inventory does not hold {', '.join(lacking)}")
    if seen.copy is None:
        reasons += seen.copy_problems or ["no last good copy is kept on this server"]
    elif all(name in seen.copy.files for name in seen.broken):
        usable.append("restore_copy")
    else:
        absent = [name for name in seen.broken if name not in seen.copy.files]
        reasons.append(f"the last good copy does not hold {', '.join(absent)}")
    return usable, reasons


def evidence_of(seen: Observed) -> list[dict[str, Any]]:
    """Return what shows the cause. Pure."""
    since = seen.copy.at if seen.copy else ""
    found = [
        *((name, "is no regular file" if name in seen.strange else "does not exist") for name in seen.missing),
        *((name, "; ".join(problems)) for name, problems in seen.invalid.items()),
        *((f"{name} since {since}", _difference(seen, name)) for name in seen.changed),
        *((name, f"has {shown(has)}, should have {shown(wanted)}") for name, (has, wanted) in seen.attributes.items()),
        *((f"service {drift.service}", drift.why) for drift in seen.drift),
    ]
    if seen.engine_error:
        found.append(("Docker", seen.engine_error))
    found += [("last good copy", problem) for problem in seen.copy_problems]
    if seen.copy is not None or not seen.copy_problems:
        found.append(("last good copy", f"of {since}" if since else "none"))
    hidden = _hidden(seen)
    masked = [{"what": what, "value": _mask(value, hidden)} for what, value in found]
    if len(masked) <= _MOST_EVIDENCE:
        return masked
    return [*masked[:_MOST_EVIDENCE], {"what": "and", "value": f"{len(masked) - _MOST_EVIDENCE} more"}]


def _difference(seen: Observed, name: str) -> str:
    old, new = (seen.copy.files[name] if seen.copy else seen.files[name]), seen.files[name]
    if name == ENV:
        return "; ".join(config_env.difference(old.text, new.text)) or "only order or comments"
    if name in SECRET:
        return "changed (never shown)"
    return " | ".join(config_env.text_difference(old.text, new.text, _hidden(seen)))


def _hidden(seen: Observed) -> list[str]:
    texts: Iterable[ConfigFile | None] = (seen.files.get(ENV), seen.copy.files.get(ENV) if seen.copy else None)
    return config_env.known_secrets(*(file.text for file in texts if file is not None))


def _mask(value: str, hidden: list[str]) -> str:
    from .redact import redact_text

    return redact_text(value, hidden)


def assemble(seen: Observed) -> dict[str, Any]:
    """Build the diagnosis in the shape that the role `runbook` takes. Pure."""
    cause, names = cause_of(seen)
    sources, reasons = sources_of(seen) if seen.broken and cause != "not_deployed" else ([], [])
    english, portuguese = (text.format(names=", ".join(names)) for text in SUMMARIES[cause])
    refuse = refusal(seen, cause, sources, reasons)
    belongs_to = BELONGS_TO.get(cause)
    if cause == "drift" and seen.unfinished is not None:
        belongs_to = "recover_db.yml"  # it has stopped services on purpose, and starts them again
    return {
        "component": COMPONENT,
        "cause": cause,
        "healthy": cause == HEALTHY,
        "evidence": evidence_of(seen),
        "summary": {"en": english, "pt": portuguese},
        "belongs_to": belongs_to,
        "refuse": {"reason": refuse} if refuse else None,
        "state": {"cause": cause, "names": list(names)},
        "facts": {
            "broken": list(seen.broken),
            "sources": sources,
            "why_not": reasons,
            "volume": seen.volume,
            "release": seen.release,
            "makes_certificate": bool(seen.rendering and seen.rendering.makes_certificate),
        },
        "loses": None,
    }


def refusal(seen: Observed, cause: str, sources: list[str], reasons: list[str]) -> dict[str, str] | None:
    """Return why nothing can be done, and what a person has to do, or None. Pure."""
    if cause == "not_deployed":
        return {
            "en": "there is no stack on this server, nor a copy of one: run playbooks/deploy.yml, or "
            "playbooks/disaster_recovery.yml if this replaces a lost server",
            "pt": "não há stack neste servidor, nem cópia de uma: execute playbooks/deploy.yml, ou "
            "playbooks/disaster_recovery.yml se ele substitui um servidor perdido",
        }
    if ENV in seen.broken and seen.volume is None:
        there = ", ".join(seen.volumes) or "none"
        return {
            "en": f"nothing tells which volume holds the database; there are: {there}. It is never guessed: name it with "
            "-e volume=NAME, or run playbooks/disaster_recovery.yml if there is none",
            "pt": f"nada indica qual volume contém o banco; existem: {there}. Ele nunca é adivinhado: informe com "
            "-e volume=NOME, ou execute playbooks/disaster_recovery.yml se não houver nenhum",
        }
    if seen.broken and not sources and seen.rendering is not None:
        why = "; ".join(reasons)
        return {
            "en": f"nothing here has the content of {', '.join(seen.broken)}: {why}. Put the secrets into the inventory's "
            "vault (Meta's and OpenAI's consoles show or renew theirs), or the escrowed passphrase of the backups, "
            "so that the last good copies open; then run this again",
            "pt": f"nada aqui tem o conteúdo de {', '.join(seen.broken)}: {why}. Coloque as senhas no vault do inventário "
            "(os consoles da Meta e da OpenAI mostram ou renovam as suas), ou a senha dos backups guardada fora, "
            "para abrir as últimas cópias boas; depois execute de novo",
        }
    return None
