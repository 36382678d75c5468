# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that users send, fetched only where ``MEDIA_FETCH`` says so. Never in the way of an answer."""
