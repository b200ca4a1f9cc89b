# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the rules of a contract are written with: findings, checks of a value and of a whole document. Pure."""

from __future__ import annotations

import datetime
import re
from typing import Any, Callable, Collection, Optional

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, did_you_mean

CODE = "EF_CONTRACT_MALFORMED"
NAME = re.compile(r"[a-z][a-z0-9_]{0,31}\Z")
KERNEL_NAME = re.compile(r"ef_[a-z0-9_]{1,12}\Z")
FREE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
DATE = re.compile(r"\d{4}-\d{2}-\d{2}\Z")
U32_MAX = 2**32 - 1
Check = Callable[[Any], Optional[str]]


class Findings:
    """Everything wrong with one document, in order; each names file, field and remedy."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.errors: list[FleetError] = []

    def add(self, field: str, problem: str, remedy: str) -> None:
        self.errors.append(FleetError(CODE, f"{self.file}: {field}: {problem}; {remedy}", self.file))


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def one_line(value: Any) -> str | None:
    good = isinstance(value, str) and value.strip() and value.isprintable()
    return None if good else "give one line of text"


def integer(low: int, high: int) -> Check:
    def check(value: Any) -> str | None:
        good = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return None if good else f"give an integer from {low} to {high}"

    return check


def choice(*words: str) -> Check:
    def check(value: Any) -> str | None:
        return one_of(value, words)

    return check


def pattern_of(pattern: re.Pattern[str], remedy: str) -> Check:
    def check(value: Any) -> str | None:
        return None if isinstance(value, str) and pattern.match(value) else remedy

    return check


def date_remedy(value: Any) -> str | None:
    remedy = "give a UTC date as YYYY-MM-DD"
    if not isinstance(value, str) or not DATE.match(value):
        return remedy
    try:
        datetime.date(int(value[:4]), int(value[5:7]), int(value[8:]))
    except ValueError:
        return remedy
    return None


def list_remedy(value: Any) -> str | None:
    return None if isinstance(value, list) and value else "give a list with at least one entry"


def mapping_remedy(value: Any) -> str | None:
    return None if isinstance(value, dict) else "give a mapping"


def names_remedy(value: Any) -> str | None:
    return list_remedy(value) or (None if all(isinstance(word, str) for word in value) else "give a list of names")


KERNEL_NAME_REMEDY = "use 'ef_' and at most 12 of [a-z0-9_] (the kernel keeps 15 characters)"
# Names in objects that others compiled are free.
FREE_NAME_CHECK = pattern_of(FREE_NAME, "use the name in the object, a C identifier")


def is_third_party(contract: dict[str, Any]) -> bool:
    """Whether the feature's objects were written and compiled by others."""
    return contract.get("origin") == "third_party"


def mappings_in(doc: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The entries of a list that are mappings; what is not one was told elsewhere."""
    values = doc.get(key)
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def at(prefix: str, key: object) -> str:
    return f"{prefix}.{key}" if prefix else str(key)


def check_keys(
    findings: Findings, prefix: str, value: Any, spec: dict[str, Check], optional: Collection[str] = ()
) -> None:
    """Check presence, spelling and value of every key; a value that is not a mapping was told elsewhere."""
    if not isinstance(value, dict):
        return
    for key in value:
        if key not in spec:
            findings.add(at(prefix, key), "is not a key of the contract", did_you_mean(key, spec))
    for key, check in spec.items():
        if key in value:
            remedy = check(value[key])
            if remedy:
                findings.add(at(prefix, key), f"is {shown(value[key])}", remedy)
        elif key not in optional:
            findings.add(at(prefix, key), "is missing", "add it")


def check_entries(findings: Findings, doc: dict[str, Any], key: str) -> list[tuple[str, dict[str, Any]]]:
    """The mappings of a list with their field names; anything else and a repeated name is said."""
    values = doc.get(key)
    found: list[tuple[str, dict[str, Any]]] = []
    names: set[str] = set()
    for index, value in enumerate(values if isinstance(values, list) else []):
        field = f"{key}[{index}]"
        if not isinstance(value, dict):
            findings.add(field, f"is {shown(value)}", "give a mapping")
            continue
        name = value.get("name")
        if isinstance(name, str) and name in names:
            findings.add(at(field, "name"), f"{name!r} is there twice", "give each a name of its own")
        names.add(str(name))
        found.append((field, value))
    return found


def check_words(findings: Findings, field: str, values: Any, check: Check) -> None:
    seen: set[str] = set()
    for index, value in enumerate(values if isinstance(values, list) else []):
        remedy = check(value)
        if remedy:
            findings.add(f"{field}[{index}]", f"is {shown(value)}", remedy)
        if str(value) in seen:
            findings.add(f"{field}[{index}]", f"{value!r} is there twice", "remove one")
        seen.add(str(value))


def one_of(word: object, known: Collection[str]) -> str | None:
    """None for a known word, else what to write instead."""
    return None if word in known else did_you_mean(word, known)
