# SPDX-License-Identifier: GPL-3.0-or-later
"""The loader under test, as for its own tests."""

from tests.loader.conftest import loader

__all__ = ["loader"]
