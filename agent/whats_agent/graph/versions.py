# SPDX-License-Identifier: GPL-3.0-or-later
"""When a Graph API version ends. Meta keeps each at least two years after its release and publishes the day.

Source: https://developers.facebook.com/docs/graph-api/changelog/versions/ as of November 2026, columns "Release Date" and
"Expiration Date". ``GRAPH_VERSION_EXPIRES`` overrides this table, since Meta may announce another day after this release of ours
was made; and whatever it says, an answer's ``facebook-api-version`` header that names another version raises the alert too.
"""

from datetime import date

EXPIRES: dict[str, date] = {
    "v17.0": date(2025, 9, 12),
    "v18.0": date(2026, 1, 26),
    "v19.0": date(2026, 5, 21),
    "v20.0": date(2026, 9, 24),
    "v21.0": date(2027, 1, 21),
    "v22.0": date(2027, 5, 20),
    "v23.0": date(2027, 10, 8),
    "v24.0": date(2028, 2, 18),
    "v25.0": date(2028, 7, 29),
}
# Released, the end still "TBD": until it is published, two years after the release is the earliest that Meta allows itself.
EARLIEST: dict[str, date] = {
    "v26.0": date(2028, 7, 29),
}


def days_left(version: str, today: date, override: date | None = None) -> int | None:
    """Days until ``version`` ends, negative once it has; None when nobody knows."""
    expires = override or EXPIRES.get(version) or EARLIEST.get(version)
    return (expires - today).days if expires is not None else None
