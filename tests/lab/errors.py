# SPDX-License-Identifier: GPL-3.0-or-later
"""The one error that the lab reports to a person."""

from __future__ import annotations


class LabError(Exception):
    """Something the lab cannot do; the message names the object and the remedy."""
