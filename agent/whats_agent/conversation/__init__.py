# SPDX-License-Identifier: GPL-3.0-or-later
"""What a conversation's state means for the next message: hand-over to a person, kill switch, context for the model."""
