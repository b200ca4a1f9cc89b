# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The index of a bundle's minimal BTF: which file belongs to which kernel. Pure."""

from __future__ import annotations

import re
from typing import Any, Collection

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.manifest import parse_canonical

PATH = "btf/index.json"
SCHEMA = "ebpf.fleet/btf-index/v1"
CODE = "EF_MANIFEST_MALFORMED"
KEYS = ["build_id", "file", "machine", "release"]
MACHINE = re.compile(r"[a-z][a-z0-9_]{0,31}\Z")
RELEASE = re.compile(r"[0-9A-Za-z][0-9A-Za-z._+~-]{0,63}\Z")
BUILD_ID = re.compile(r"[0-9a-f]{40}\Z")


def parse_index(data: bytes, files: Collection[str]) -> list[dict[str, Any]]:
    """The entries of ``btf/index.json``; ``files`` are the bundle's paths. Raises FleetError."""
    doc = parse_canonical(data, PATH, CODE)
    if not isinstance(doc, dict) or sorted(doc) != ["entries", "schema"] or doc["schema"] != SCHEMA:
        raise _malformed("document", f"is not of the schema {SCHEMA}")
    if not isinstance(doc["entries"], list):
        raise _malformed("entries", "is not a list")
    for number, entry in enumerate(doc["entries"]):
        problem = _entry_problem(entry, files)
        if problem:
            raise _malformed(f"entries[{number}]", problem)
    return list(doc["entries"])


def _malformed(field: str, problem: str) -> FleetError:
    return FleetError(CODE, f"{PATH}: {field}: {problem}; build and sign the bundle again", PATH)


def _entry_problem(entry: Any, files: Collection[str]) -> str | None:
    if not isinstance(entry, dict) or sorted(entry) != KEYS:
        return "does not have exactly the keys " + ", ".join(KEYS)
    if not isinstance(entry["machine"], str) or not MACHINE.match(entry["machine"]):
        return "machine is not what uname -m prints"
    if not isinstance(entry["release"], str) or not RELEASE.match(entry["release"]):
        return "release is not what uname -r prints"
    known = entry["build_id"]
    if known is not None and not (isinstance(known, str) and BUILD_ID.match(known)):
        return "build_id is neither 40 hex digits nor null"
    file = entry["file"]
    if not isinstance(file, str) or file not in files or not file.startswith(f"btf/{entry['machine']}/"):
        return "file is not one of the bundle below btf/MACHINE/"
    return None
