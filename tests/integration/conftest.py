# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the integration tests."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--chaos-seconds",
        type=float,
        default=30.0,
        help="how long the chaos test kills parts at random under load (default 30)",
    )
