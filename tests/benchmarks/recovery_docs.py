# SPDX-License-Identifier: GPL-3.0-or-later
"""The page docs/recovery_times.md and its plot, written from what was measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from tests.benchmarks.machine import described
from tests.benchmarks.recovery_report import Row, Target, size_text, table, target_table

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE, PLOT = DOCS / "recovery_times.md", DOCS / "recovery_times.svg"

WIDTH, LABEL, RIGHT, BAR, GAP, TOP = 900, 230, 60, 11, 9, 64
# Dark enough on white and light enough on black; each also told apart by its place.
COLOURS = {
    "recover_db.yml: start-up": "#9aa5b1",
    "detect": "#3b82c4",
    "act": "#d9822b",
    "verify": "#3f9c6b",
    "bare pgBackRest, to first write": "#7d6ab8",
    "the guide's commands": "#b5485d",
}


def bars_of(row: Row) -> list[list[tuple[str, float]]]:
    """The bars of one case, each as its coloured parts in seconds: this project's, the bare tool's, the guide's."""
    total = row.median("total") or 0.0
    parts = [(name, row.median(name) or 0.0) for name in ("detect", "act", "verify")]
    rest = max(total - sum(seconds for _, seconds in parts), 0.0)
    names = list(COLOURS)
    bars = [[(names[0], rest), *parts]]
    bare = row.median("bare")
    if bare is not None:
        bars.append([(names[4], bare)])
    if row.guide is not None:
        bars.append([(names[5], row.guide)])
    return bars


def plot(rows: Sequence[Row]) -> str:
    """Horizontal bars as an SVG image; one scale for all, so that sizes compare."""
    groups = [(row, bars_of(row)) for row in rows]
    longest = max((sum(part for _, part in bar) for _, bars in groups for bar in bars), default=1.0)
    scale = (WIDTH - LABEL - RIGHT) / longest
    lines: list[str] = []
    for number, (name, colour) in enumerate(COLOURS.items()):
        x, y = 12 + number % 3 * 290, 14 + number // 3 * 20
        lines.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{colour}"/>')
        lines.append(f'<text x="{x + 18}" y="{y + 10}">{escape(name)}</text>')
    y = TOP
    for row, bars in groups:
        name = escape(f"{size_text(row.megabytes)}  {row.case}")
        lines.append(f'<text x="{LABEL - 8}" y="{y + BAR - 1}" text-anchor="end">{name}</text>')
        for bar in bars:
            end = float(LABEL)
            for part, seconds in bar:
                lines.append(
                    f'<rect x="{end:.1f}" y="{y}" width="{seconds * scale:.1f}" height="{BAR}" fill="{COLOURS[part]}"/>'
                )
                end += seconds * scale
            lines.append(f'<text x="{end + 5:.1f}" y="{y + BAR - 1}">{sum(part for _, part in bar):.1f} s</text>')
            y += BAR + 2
        y += GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 4}" width="{WIDTH}" height="{y + 4}" '
        'font-family="sans-serif" font-size="11" fill="#24292f">'
    )
    return "\n".join([head, f'<rect width="{WIDTH}" height="{y + 4}" fill="#ffffff"/>', *lines, "</svg>\n"])


def page(rows: Sequence[Row], found: Sequence[Target], minutes: float) -> str:
    """The page's Markdown."""
    day = time.strftime("%Y-%m-%d", time.gmtime())
    return f"""# How long a broken database takes to come back

Written by `tests/benchmarks/recovery.py --write-docs` on {day}, on {described()}, in {minutes:.0f} minutes. To measure again, on a
quiet machine with 16 GB of free disk:

```console
$ .venv/bin/python tests/benchmarks/recovery.py --quick        # 100 MB, everything once
$ .venv/bin/python tests/benchmarks/recovery.py --write-docs   # both sizes; writes this page anew
```

A throwaway server is made for it, as the Molecule scenarios have it, and removed at the end; nothing else on the machine is
touched. The database gets its size, every fault is inflicted for real, and a client sends four messages a second all the
while, before, during and after.

![Bars: seconds of each recovery, of the bare tool and of the guide's commands](recovery_times.svg)

## Targets

{target_table(found)}

## Measured

{table(rows)}

Times are seconds, medians where a case was measured more than once.

- **detect, act, verify** are the run's own account, from its journal: opening to plan, the remedies, and what follows until it is
  verified. Verifying includes a stable window of two seconds.
- **total** is the whole `ansible-playbook` command, as an operator waits for it: start-up, ssh, and after a restore the full check
  and the new backup as well, which come when the service is back.
- **to first write** is from the command to the first write that the database takes, seen by a plain connection that keeps trying.
- **bare tool**: the same, on the same repository just before, of `pgbackrest restore`, a start and the replay, by one who knows the
  commands. It checks nothing, carries over nothing that only the old volume has, and puts nothing into service.
  Both restore the same backup: the newest, which was proven before, since a run takes none that is not. Both read it from the disk,
  as at night, when nobody has read it for hours: its files are taken out of the cache before each. The rows called `cached` are
  without that; they are no part of the target.
- **÷ bare**: start-up, looking, letting the writers finish and checking take about as long at both sizes, and the bare tool does
  none of it: the less there is to restore, the worse the ratio.
- **Causes that take a person** are refused: they are named, which is measured, and what the person has to decide is said.
- **wrong_data, undo_wanted**: the run with the consent; the one that asks for it, which comes before, is not counted.
- **restore_unfinished**: the controller and all it had running on the server are killed once the new volume is filled, before it is
  put into service; what is measured is the run right after that, which waits up to 30 s until the dead one's lease has ended;
  **restore_abandoned** likewise. That wait is part of `detect` here, and no part of the diagnosis in the target.
- **guide**: the troubleshooting guide's commands in a [script](../tests/benchmarks/recovery_guide.sh), with its sleeps, by one who
  knows which case it is. Its restore goes back to last night's dump: what came later is only back because this project's agent
  reads its message log again.
- **lost, answered twice**: every message that the client was told 200 about, against the rows of a plain `psql` and the record of
  the stand-in for the Graph API.
"""


def write(rows: Sequence[Row], found: Sequence[Target], minutes: float) -> None:
    """Write page and plot."""
    PAGE.write_text(page(rows, found, minutes), encoding="utf-8")
    PLOT.write_text(plot(rows), encoding="utf-8")
