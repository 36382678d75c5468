# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action of the module release_image: run it and show its progress."""

from __future__ import annotations

from ansible.plugins.loader import action_loader

ActionModule = action_loader.get("with_progress", class_only=True)
