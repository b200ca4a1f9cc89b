# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts of a contract that the skeleton of a new feature left open, `make feature`. Pure.

They keep no contract from being built and tried, but no release is to name an owner that does not exist.
"""

from __future__ import annotations

from typing import Any, Iterator

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.rules import Findings, at, shown

PLACEHOLDER = "FILL IN"


def placeholders(doc: Any, file: str) -> list[FleetError]:
    """One error (EF_CONTRACT_MALFORMED) for each text, however deep, that begins with FILL IN."""
    findings = Findings(file)
    for field, text in _texts("", doc):
        if text.lstrip().upper().startswith(PLACEHOLDER):
            findings.add(field, f"is {shown(text)}, which a new feature's skeleton left open", "write what it asks for")
    return findings.errors


def _texts(field: str, value: Any) -> Iterator[tuple[str, str]]:
    """(field, text) of every text in a document."""
    if isinstance(value, str):
        yield field, value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _texts(at(field, key), one)
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from _texts(f"{field}[{index}]", one)
