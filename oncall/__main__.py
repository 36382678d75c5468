# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m oncall`."""

from oncall.cli import main

main()
