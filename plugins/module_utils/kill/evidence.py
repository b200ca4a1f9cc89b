# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is left of what was ordered off, as the kernel says it.

Off is proven by the kernel's list of programs, and by the descriptors that processes hold. What
cannot be looked at counts as left.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any, Iterable, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base import bounded

_PROG_ID = re.compile(r"^prog_id:\s*([0-9]+)$", re.MULTILINE)

# As the loader writes it: id, tag, feature, name.
_LISTED = re.compile(r"([0-9]{1,10}) ([0-9a-f]{1,16}) ([a-z][a-z0-9_]{0,31}) ([A-Za-z0-9_.]{1,127})")

LIST_LIMIT_BYTES = 32 << 10
CONTRACT_LIMIT_BYTES = 1 << 20
OWN_PREFIX = "ef_"
KERNEL_NAME_BYTES = 15


class Attached(NamedTuple):
    """One line of the loader's list of programs."""

    id: int
    tag: str
    feature: str
    name: str


def parse_programs(text: str) -> list[Attached]:
    """The loader's list of programs; a line that is cut off, or is not one that a loader writes, is left out."""
    found = (_LISTED.fullmatch(line) for line in text.split("\n"))
    return [Attached(int(one[1]), one[2], one[3], one[4]) for one in found if one]


def read_listed(paths: Iterable[Path]) -> list[Attached] | None:
    """The programs on these lists; None where there is no list that can be used.

    Whoever owns their folder can put anything there, so they are read bounded.
    """
    texts = []
    for path in paths:
        with contextlib.suppress(bounded.BoundedReadError):
            texts.append(bounded.read_text(path, LIST_LIMIT_BYTES))
    usable = [text for text in texts if text is not None]
    return [one for text in usable for one in parse_programs(text)] if usable else None


def contract_programs(lib_dir: Path, features: Sequence[str]) -> set[str]:
    """Names of the features' programs by the contracts of the current and the previous release."""
    names: set[str] = set()
    for release in ("current", "previous"):
        for feature in features:
            path = lib_dir / release / "bundle/features" / feature / "contract.json"
            with contextlib.suppress(bounded.BoundedReadError):
                names |= _names_in(bounded.read_json(path, CONTRACT_LIMIT_BYTES))
    return names


def _names_in(document: Any) -> set[str]:
    """Every name in a list `programs`, wherever it stands."""
    if isinstance(document, list):
        return {name for one in document for name in _names_in(one)}
    if not isinstance(document, dict):
        return set()
    listed = document.get("programs")
    here = {one for one in listed if isinstance(one, str)} if isinstance(listed, list) else set()
    return here | {name for one in document.values() for name in _names_in(one)}


def remaining_of(
    programs: Iterable[Any], features: Sequence[str], names: set[str], listed: Sequence[Attached], has_list: bool
) -> list[Any]:
    """Those of our `programs` that are, or may be, of the features.

    By contract where there is one. Else what the list does not have as another feature's counts.
    """
    of_feature = {one.id for one in listed if one.feature in features}
    of_others = {one.id for one in listed if one.feature not in features} if has_list else set()
    return [
        one for one in programs if one.id in of_feature or one.name in names or (not names and one.id not in of_others)
    ]


def ours(programs: Iterable[Any], listed: Iterable[Attached]) -> list[Any]:
    """Those of the kernel's programs that are ours: by their name, or because a list of ours had them.

    Programs of others that the loader runs have names of their own, so tag and name (as the
    kernel cuts it) tell them.
    """
    known = {(one.tag, one.name[:KERNEL_NAME_BYTES]) for one in listed}
    return [one for one in programs if one.name.startswith(OWN_PREFIX) or (one.tag, one.name) in known]


def parse_fdinfo(text: str) -> int | None:
    """The program id that a descriptor holds, directly or by a link; None if it holds none."""
    found = _PROG_ID.search(text)
    return None if found is None else int(found.group(1))


def held_programs(proc: Path) -> dict[int, list[int]]:
    """{program id: pids that hold it} over all processes; needs root to see them all."""
    held: dict[int, list[int]] = {}
    for folder in proc.glob("[0-9]*/fdinfo"):
        for program in _programs_in(folder):
            held.setdefault(program, []).append(int(folder.parent.name))
    return held


def _programs_in(folder: Path) -> set[int]:
    found = set()
    try:
        for entry in folder.iterdir():
            program = parse_fdinfo(entry.read_text(encoding="ascii", errors="replace"))
            if program is not None:
                found.add(program)
    except OSError:
        # The process or its descriptor is gone, and with it what it held.
        return found
    return found
