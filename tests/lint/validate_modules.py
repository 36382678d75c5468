# SPDX-License-Identifier: GPL-3.0-or-later
"""Run `ansible-test sanity --test validate-modules` over library/ and module_utils/.

ansible-test only works inside a collection, and this project is a playbook tree. So its modules are copied into a
collection of their own under .cache/lint, with the imports rewritten, and are checked there. Exit code: ansible-test's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".cache" / "lint" / "validate_modules"
NAMESPACE, NAME = "whats_agent", "runbooks"
GALAXY = f"namespace: {NAMESPACE}\nname: {NAME}\nversion: 0.1.0\nreadme: README.md\nauthors: [whats_agent]\n"

# ansible-test bootstraps pip in its own virtual environment with a script from a host that not every network reaches.
# Python's bundled pip serves as well.
PIP_STAND_IN = "import ensurepip\n\nensurepip.bootstrap(upgrade=True)\n"
PIP_SCRIPT_WANTED = re.compile(r"manually downloaded and saved to: (?P<path>\S+)")


def rewrite_imports(source: str) -> str:
    """Make `ansible.module_utils.whats_agent` of a playbook tree the collection's own package."""
    return source.replace(
        "ansible.module_utils.whats_agent",
        f"ansible_collections.{NAMESPACE}.{NAME}.plugins.module_utils.whats_agent",
    )


def build_collection() -> Path:
    """Copy the modules and what they share into a fresh collection tree; return its root."""
    root = WORK / "ansible_collections" / NAMESPACE / NAME
    if root.exists():
        shutil.rmtree(root)
    for source, target in (
        (ROOT / "library", root / "plugins" / "modules"),
        (ROOT / "module_utils", root / "plugins" / "module_utils"),
    ):
        for file in sorted(source.rglob("*.py")):
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(rewrite_imports(file.read_text(encoding="utf-8")), encoding="utf-8")
    (root / "galaxy.yml").write_text(GALAXY, encoding="utf-8")
    # ansible-test asks git which files there are.
    subprocess.run(["git", "init", "--quiet", "."], cwd=root, check=True)
    subprocess.run(["git", "add", "--all"], cwd=root, check=True)
    return root


def run_sanity(root: Path) -> subprocess.CompletedProcess[str]:
    """Run the sanity test in the collection, its cache and virtual environment kept under .cache."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    home = WORK / "home"
    home.mkdir(parents=True, exist_ok=True)
    command = [str(Path(sys.executable).parent / "ansible-test")]
    command += ["sanity", "--test", "validate-modules", "--python", python, "--color", "no"]
    environment = {**os.environ, "HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        command,
        cwd=root,
        env=environment,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def main() -> int:
    """Check, with Python's own pip where ansible-test cannot fetch its script; print what was found."""
    root = build_collection()
    modules = sorted((root / "plugins" / "modules").glob("*.py"))
    if not modules:
        print("validate-modules: library/ holds no module")
        return 1
    result = run_sanity(root)
    wanted = PIP_SCRIPT_WANTED.search(result.stdout)
    if result.returncode != 0 and wanted:
        script = Path(wanted["path"])
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(PIP_STAND_IN, encoding="utf-8")
        result = run_sanity(root)
    if result.returncode != 0:
        # The file names are the copy's; say where they come from.
        print(result.stdout.replace("plugins/modules/", "library/").replace("plugins/module_utils/", "module_utils/"))
    else:
        print(f"validate-modules: {len(modules)} modules checked")
    return result.returncode


if __name__ == "__main__":
    sys.exit(main())
