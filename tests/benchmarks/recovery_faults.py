# SPDX-License-Identifier: GPL-3.0-or-later
"""What breaks the database: the Molecule scenarios' own faults, a module's and a script's, so that both mean the same by a name."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import yaml

from tests.benchmarks.recovery_server import INVENTORY, MODULES, ROOT, Server

SCRIPT = ROOT / "tests/molecule/recover_db_causes/files/faults.sh"
ON_SERVER = "/root/whats_agent_faults.sh"


def load_module(name: str) -> ModuleType:
    """One of the Molecule scenarios' own modules, for its plain functions."""
    spec = importlib.util.spec_from_file_location(name, MODULES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def of_module() -> set[str]:
    """The faults of `database_fault`."""
    documentation = yaml.safe_load(load_module("database_fault").DOCUMENTATION)
    return set(documentation["options"]["fault"]["choices"])


def of_script(action: str, script: Path = SCRIPT) -> set[str]:
    """The names that the script can `break`, or has to `mend` after the runbook."""
    return set(re.findall(rf"^{action}_(\w+)\(\)", script.read_text(encoding="utf-8"), re.MULTILINE))


def inflict(server: Server, name: str) -> None:
    """Break the database; it is broken when this returns."""
    if name in of_module():
        arguments = ("-m", "database_fault", "-a", f"fault={name}")
        server.ansible("ansible", "agent_hosts", "-i", str(INVENTORY), "-M", str(MODULES), *arguments)
    else:
        _run(server, "break", name)


def put_right(server: Server, name: str) -> None:
    """After the recovery: undo of the fault what is not the runbook's to mend."""
    if name not in of_module() and name in of_script("mend"):
        _run(server, "mend", name)


def meanwhile(server: Server, name: str) -> None:
    """Do what somebody does to a database that is being recovered."""
    _run(server, "meanwhile", name)


def _run(server: Server, action: str, name: str) -> None:
    server.run("sh", "-c", f"cat > {ON_SERVER}", stdin=SCRIPT.read_text(encoding="utf-8"))
    server.run("bash", ON_SERVER, action, name)
