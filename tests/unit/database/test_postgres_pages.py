# SPDX-License-Identifier: GPL-3.0-or-later
"""The scan of the pages on disk: what is read in which order, and whose a bad page is."""

from __future__ import annotations

from ansible.module_utils.whats_agent.postgres_integrity import judge_pages
from ansible.module_utils.whats_agent.postgres_pages import BadPage, PageScan, Relation

TABLE = Relation(oid=16400, name="public.messages", kind="r", catalog=False, table_of_index=None)


def test_a_bad_page_of_nobodys_does_not_disprove_a_database() -> None:
    orphan = BadPage("base/5/99", 0, "main", None)
    told = judge_pages(PageScan((orphan,), 8192, 8192))
    assert told.ok
    assert "page 0 of no relation (base/5/99)" in told.detail
    damaged = judge_pages(PageScan((orphan, BadPage("base/5/16400", 3, "main", TABLE)), 8192, 8192))
    assert not damaged.ok
    assert damaged.detail == "page 3 of public.messages (base/5/16400)"
