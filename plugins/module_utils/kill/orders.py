# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill orders: what they are called, how a person writes them, and where they lie."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from pathlib import Path
from typing import NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import OneCodeError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable

_FEATURE = re.compile(r"[a-z][a-z0-9_]{0,31}")
_FAMILY = re.compile(r"(?:[A-Za-z0-9._]+(?:-[A-Za-z0-9._]+)*-)?[0-9]+\.[0-9]+")

REMEDY = "write global, feature=NAME or kernel_family=6.1 (or debian-6.1)"


class ScopeError(OneCodeError):
    """A scope that cannot be meant; the message names it and the remedy."""

    code = "EF_ARGUMENT"


class Scope(NamedTuple):
    """What an order turns off: `kind` is global, feature or family; `name` is empty for global."""

    kind: str
    name: str

    @property
    def order(self) -> str:
        """Name of the order's file."""
        return self.kind if self.kind == "global" else f"{self.kind}.{self.name}"

    @property
    def text(self) -> str:
        """The scope as a person writes it."""
        return self.kind if self.kind == "global" else f"{'kernel_' * (self.kind == 'family')}{self.kind}={self.name}"


def parse_scope(text: object) -> Scope:
    """Read one scope as a person writes it, or raise ScopeError."""
    kind, equals, name = str(text).partition("=")
    if kind == "global" and not equals:
        return Scope("global", "")
    if kind == "feature" and _FEATURE.fullmatch(name):
        return Scope("feature", name)
    if kind == "kernel_family" and _FAMILY.fullmatch(name):
        return Scope("family", name)
    shown = printable(text, 60)
    raise ScopeError(f"scope '{shown}' is not one: {meant(str(text))}{REMEDY[1:]}")


def meant(text: str) -> str:
    """The scope that was probably meant, as the begin of a sentence; empty where none is near."""
    kind, equals, name = (part.strip() for part in text.partition("="))
    near = difflib.get_close_matches(
        kind.lower().replace("-", "_"), ["global", "feature", "kernel_family", "previous"], n=1
    )
    if kind.lower() in ("family", "kernel", "kernelfamily"):
        near = ["kernel_family"]
    found = _repaired(near[0] if near else "", equals, name) or _repaired("kernel_family", "=", kind)
    found = found or (_repaired("feature", "=", kind) if not equals else "")
    return f"did you mean {found}? W" if found else "w"


def _repaired(kind: str, equals: str, name: str) -> str:
    if kind in ("global", "previous"):
        return kind
    if kind == "feature" and _FEATURE.fullmatch(name.lower()):
        return f"feature={name.lower()}"
    family = _FAMILY.match(name.lower().replace(" ", "-"))
    if kind == "kernel_family" and equals and family:
        return f"kernel_family={family.group()}"
    return f"{kind}=NAME" if kind == "feature" and not name else ""


def scope_of(order: str) -> str:
    """The scope of an order's file as a person writes it."""
    kind, _dot, name = order.partition(".")
    return Scope(kind, name).text if kind in ("feature", "family") else order


def parse_scopes(texts: object) -> list[Scope]:
    """Read scopes, each once; an empty list is an error, as an order of nothing has no meaning."""
    if isinstance(texts, str) or not isinstance(texts, (list, tuple)) or not texts:
        raise ScopeError(f"scopes: give a list of at least one; {REMEDY}")
    return list(dict.fromkeys(parse_scope(text) for text in texts))


def concerns_all(scopes: Sequence[Scope], families: Sequence[str | None]) -> bool:
    """Do the scopes turn everything off on a host of these families?"""
    return any(scope.kind == "global" or (scope.kind == "family" and scope.name in families) for scope in scopes)


def features_of(scopes: Sequence[Scope]) -> list[str]:
    """The features that the scopes name."""
    return [scope.name for scope in scopes if scope.kind == "feature"]


def orders_in(folder: Path) -> list[str]:
    """Names of the orders in a folder, sorted; none if the folder does not exist."""
    try:
        return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    except FileNotFoundError:
        return []


def place(folder: Path, scopes: Sequence[Scope]) -> list[Path]:
    """Put the orders into a folder, made if need be; returns the new files.

    One that the kill list placed (docs/pull-channel.md) is emptied: now a person's, it is not taken back by the list.
    """
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    for path in (folder / scope.order for scope in scopes):
        if path.is_file() and not path.is_symlink() and path.stat().st_size:
            with contextlib.suppress(OSError):  # it holds either way
                os.truncate(path, 0)
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
