# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Callback: a play over nobody is a failure, not a green run."""

from __future__ import annotations

DOCUMENTATION = """
name: no_hosts
type: aggregate
short_description: Fail when a play matches no host
version_added: 0.1.0
description:
  - C(--limit) with a host that is no part of a play leaves that play without hosts, and C(ansible-playbook) then ends with 0. An
    operator would read that as done. With this callback it ends with 1 and says which play had nobody.
  - Plays on C(localhost) may be limited away, since they only prepare the controller.
requirements:
  - named in C(callbacks_enabled)
"""

from typing import TYPE_CHECKING

from ansible.plugins.callback import CallbackBase

if TYPE_CHECKING:
    from ansible.playbook.play import Play


class CallbackModule(CallbackBase):  # type: ignore[misc]  # ansible-core ships no types
    """Watch for plays without hosts."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "no_hosts"
    CALLBACK_NEEDS_ENABLED = True

    _hosts: str = ""

    def v2_playbook_on_play_start(self, play: Play) -> None:
        """Remember which hosts the play is for."""
        hosts = play.hosts if isinstance(play.hosts, list) else [play.hosts]
        self._hosts = ",".join(str(host) for host in hosts)

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """End the run: SystemExit is what a callback can raise that ansible-core does not swallow."""
        if self._hosts in ("localhost", "127.0.0.1"):
            return
        self._display.error(f"no host matched {self._hosts}: nothing was done (check the inventory and --limit)")
        raise SystemExit(1)
