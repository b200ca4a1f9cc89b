# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a skip is a hole that is listed with its reason, or breaks a promise of setup (tests/holes.yml)."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import Any

import yaml

LIST = Path(__file__).resolve().parents[1] / "holes.yml"


def is_set_up() -> bool:
    """Does the test belong to a run that set this machine up?"""
    return os.environ.get("EBPF_FLEET_SET_UP") == "1"


@functools.lru_cache(maxsize=1)
def listed() -> dict[str, Any]:
    """{"provided" or "holes": {pattern: why}}."""
    found: dict[str, Any] = yaml.safe_load(LIST.read_text(encoding="utf-8"))
    return found


def kinds(reason: str) -> list[str]:
    """In which of the two lists a skip's reason is: one of them, or none when no one listed it."""
    return [kind for kind, patterns in listed().items() if any(re.match(pattern, reason) for pattern in patterns)]


def fault(reason: str) -> str | None:
    """Why a run that set the machine up may not skip a test for that reason; None: it may."""
    found = kinds(reason)
    if found == ["holes"]:
        return None
    if "provided" in found:
        return f"{reason}: setup provides it (tools/packages.txt, tools/setup.sh), so that it is missing is a fault"
    return f"{reason}: this reason to skip is not in tests/holes.yml; list it there with why, or let the test run"
