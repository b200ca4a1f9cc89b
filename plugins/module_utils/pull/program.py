# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pull channel's program as prepare brings it to a host: the very files of the collection. On the controller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Iterator, Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.pull import documents

ROOM = "plugins/module_utils"
PACKAGE = "ansible_collections/ebpf/fleet"
# Every file that visit.py imports, and what those import; a test reads the imports.
FILES = (
    "base/atomic_files.py", "base/bounded.py", "base/errors.py", "base/printable.py", "base/reasons/bundle.py",
    "base/reasons/features.py", "base/reasons/fleet.py", "base/reasons/reason.py", "base/reasons/table.py",
    "base/strictjson.py", "bundle/manifest.py", "bundle/signature.py", "bundle/trustfiles.py", "kill/killlist.py",
    "kill/orders.py", "pull/documents.py", "pull/fetch.py", "pull/metrics.py", "pull/places.py", "pull/sealed.py",
    "pull/visit.py",
)  # fmt: skip


def files(folder: str) -> Iterator[tuple[str, str]]:
    """(path on the host, text) of each file below a folder of the host."""
    utils = Path(__file__).resolve().parents[1]
    for name in FILES:
        yield f"{folder}/{PACKAGE}/{ROOM}/{name}", (utils / name).read_text(encoding="utf-8")


def settings(fields: Mapping[str, Any]) -> str:
    """The text of a host's pull.json, read back by what reads it there; raises FleetError (EF_ARGUMENT)."""
    text = json.dumps({"schema": documents.SETTINGS, **fields}, sort_keys=True, indent=1) + "\n"
    documents.parse_settings(text.encode(), "pull.json")
    return text
