# SPDX-License-Identifier: GPL-3.0-or-later
"""The loader's own fixtures: keys, trust and objects."""

from tests.loader.conftest import feature_objects, loader, other_key, signing_key, trust

__all__ = ["feature_objects", "loader", "other_key", "signing_key", "trust"]
