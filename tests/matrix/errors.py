# SPDX-License-Identifier: GPL-3.0-or-later
"""The one error that ends a matrix."""

from __future__ import annotations


class MatrixError(Exception):
    """Something without which there is no matrix; the message names the object and the remedy."""
