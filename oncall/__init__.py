# SPDX-License-Identifier: GPL-3.0-or-later
"""`oncall`: run runbooks and look at hosts from one command line, over ansible-runner."""
