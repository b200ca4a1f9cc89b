# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
"""Kill orders: what they are called, where they lie, and whether they have taken effect.

Off is proven from the kernel: by its list of programs, and by the descriptors that processes
hold. What cannot be looked at counts as left.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Iterable, NamedTuple, Sequence

_FEATURE = re.compile(r"[a-z][a-z0-9_]{0,31}")
_FAMILY = re.compile(r"(?:[A-Za-z0-9._]+(?:-[A-Za-z0-9._]+)*-)?[0-9]+\.[0-9]+")
_PROG_ID = re.compile(r"^prog_id:\s*([0-9]+)$", re.MULTILINE)

OWN_PREFIX = "ef_"
KERNEL_NAME_BYTES = 15

REMEDY = "write global, feature=NAME or kernel_family=6.1 (or debian-6.1)"


class ScopeError(ValueError):
    """A scope that is none; the message names it and the remedy."""


class Scope(NamedTuple):
    """What an order turns off: `kind` is global, feature or family; `name` is empty for global."""

    kind: str
    name: str

    @property
    def order(self) -> str:
        """Name of the order's file."""
        return self.kind if self.kind == "global" else f"{self.kind}.{self.name}"


def parse_scope(text: object) -> Scope:
    """Read one scope as a person writes it, or raise ScopeError."""
    kind, equals, name = str(text).partition("=")
    if kind == "global" and not equals:
        return Scope("global", "")
    if kind == "feature" and _FEATURE.fullmatch(name):
        return Scope("feature", name)
    if kind == "kernel_family" and _FAMILY.fullmatch(name):
        return Scope("family", name)
    raise ScopeError(f"scope {str(text)!r}: {REMEDY}")


def parse_scopes(texts: object) -> list[Scope]:
    """Read scopes, each once; an empty list is an error, as nobody orders nothing."""
    if isinstance(texts, str) or not isinstance(texts, (list, tuple)) or not texts:
        raise ScopeError(f"scopes: give a list of at least one; {REMEDY}")
    return list(dict.fromkeys(parse_scope(text) for text in texts))


def concerns_all(scopes: Sequence[Scope], families: Sequence[str | None]) -> bool:
    """Do the scopes turn everything off on a host of these families?"""
    return any(
        scope.kind == "global" or (scope.kind == "family" and scope.name in families) for scope in scopes
    )


def features_of(scopes: Sequence[Scope]) -> list[str]:
    """The features that the scopes name."""
    return [scope.name for scope in scopes if scope.kind == "feature"]


class Attached(NamedTuple):
    """One line of the loader's list of programs."""

    id: int
    tag: str
    feature: str
    name: str


def parse_programs(text: str) -> list[Attached]:
    """The loader's list of programs; a line that is cut off is left out."""
    lines = [line.split() for line in text.splitlines()]
    return [
        Attached(int(words[0]), words[1], words[2], words[3])
        for words in lines
        if len(words) == 4 and words[0].isdigit()
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


def orders_in(folder: Path) -> list[str]:
    """Names of the orders in a folder, sorted; none if the folder does not exist."""
    try:
        return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    except FileNotFoundError:
        return []


def place(folder: Path, scopes: Sequence[Scope]) -> list[Path]:
    """Put the orders into a folder, made if need be; returns the new files."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = [folder / scope.order for scope in scopes if not (folder / scope.order).exists()]
    for path in new:
        path.touch(mode=0o644)
    return new


def remove(folder: Path, scopes: Sequence[Scope]) -> list[Path]:
    """Take the orders out of a folder; returns the files that were there."""
    old = [folder / scope.order for scope in scopes if (folder / scope.order).exists()]
    for path in old:
        path.unlink()
    return old
