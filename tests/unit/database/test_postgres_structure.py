# SPDX-License-Identifier: GPL-3.0-or-later
"""What pg_amcheck says, and what becomes of it: an index that is wrong on sound pages has a name and is rebuilt."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from ansible.module_utils.whats_agent import postgres_integrity as integrity
from ansible.module_utils.whats_agent.errors import WhatsAgentError

if TYPE_CHECKING:
    from ansible.module_utils.whats_agent.docker_host import DockerHost

# As pg_amcheck 17 said it of an index that lacked a row; the second in the words of its source.
OUTPUT = """\
btree index "app.public.m_i":
    ERROR:  heap tuple (0,3) from table "m" lacks matching index tuple within index "m_i"
    HINT:  Retrying verification using the function bt_index_parent_check() might provide a more specific error.
heap table "app.pg_catalog.pg_class", block 2, offset 7, attribute 3:
    xmin 4 precedes oldest valid transaction ID 0:730
heap table "app.pg_catalog.pg_class", block 3, offset 1:
    line pointer redirection to item at offset 9 exceeds maximum offset 2
"""


def test_each_wrong_table_and_index_is_named_once_with_its_first_complaint() -> None:
    index, table = integrity.read_amcheck(OUTPUT, "app")
    assert (index.kind, index.name, index.catalog) == ("index", "public.m_i", False)
    assert index.detail.startswith("ERROR:  heap tuple (0,3)")
    assert (table.kind, table.name, table.catalog) == ("table", "pg_catalog.pg_class", True)
    assert table.describe() == (
        "table pg_catalog.pg_class: block 2, offset 7, attribute 3, xmin 4 precedes oldest valid transaction ID 0:730"
    )


def engine(exit_code: int, stdout: str = "", stderr: str = "") -> DockerHost:
    """Return an engine in which pg_amcheck answers so."""

    def execute(_container: str, argv: list[str], **_: Any) -> SimpleNamespace:
        assert argv[-1] == "--database=app"
        assert "--heapallindexed" in argv
        return SimpleNamespace(exit_code=exit_code, stdout=stdout, stderr=stderr)

    return SimpleNamespace(execute=execute)  # type: ignore[return-value]


def test_a_look_that_failed_is_no_clean_bill() -> None:
    assert integrity.find_wrong(engine(0), "c1", "app") == ()
    assert len(integrity.find_wrong(engine(2, OUTPUT), "c1", "app")) == 2
    with pytest.raises(WhatsAgentError, match="pg_amcheck ended with 1: amcheck is not installed"):
        integrity.find_wrong(engine(1, "", "amcheck is not installed\n"), "c1", "app")
