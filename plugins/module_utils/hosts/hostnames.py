# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of an inventory: a pattern that means exactly one of them, and what a run left out. Pure.

A name may hold whatever a pattern uses as a sign: commas, colons, blanks, brackets. Ansible reads
every text in `hosts:` as a pattern, so a name that is handed on as it is can mean other hosts or none.
"""

from __future__ import annotations

import re
from typing import Iterable, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import did_you_mean
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable

# What no reader of patterns takes apart.
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
NAMED_LIMIT = 10


def exact_pattern(name: str) -> str:
    """A pattern that matches this host and no other, whatever characters its name has.

    It is a regular expression with every sign written as a number, so that it holds no comma,
    colon, blank or bracket, and no glob.
    """
    if _PLAIN.fullmatch(name):
        return name
    return "~" + "".join(map(_as_number, name)) + r"\Z"


def _as_number(letter: str) -> str:
    if letter.isascii() and letter.isalnum():
        return letter
    number = ord(letter)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def some_of(names: Iterable[str], limit: int = NAMED_LIMIT) -> str:
    """The first of the names in quotes, and how many more there are."""
    found = list(names)
    shown = ", ".join(f"'{printable(name, 80)}'" for name in found[:limit])
    return shown if len(found) <= limit else f"{shown} and {len(found) - limit} more"


def nearest(word: str, known: Iterable[str]) -> str:
    """The nearest known name as the part of a sentence; a choice of names only where they are few."""
    names = sorted(known)
    hint: str = printable(did_you_mean(word, names))
    if hint.startswith("did you mean") or len(names) <= NAMED_LIMIT:
        return hint
    return f"there are {len(names)} names, and none is near it"


def difference(expected: Sequence[str], addressed: Sequence[str]) -> list[str]:
    """A sentence for each way in which the hosts of a play are not those that the inventory names."""
    there, wanted = set(addressed), set(expected)
    left_out = [name for name in expected if name not in there]
    added = [name for name in addressed if name not in wanted]
    found = []
    if left_out:
        found.append(
            f"{len(left_out)} of {len(expected)} hosts of the inventory were not addressed: {some_of(left_out)}."
        )
    if added:
        found.append(f"Hosts were addressed that the inventory does not name so: {some_of(added)}.")
    return found


def unmatched(where: str, text: str, terms: Sequence[str], known: Iterable[str]) -> str:
    """A sentence on the terms of a pattern that match no host and no group; the text as a whole may be a name."""
    names = list(known)
    hint = nearest(text.lstrip("!&"), names)
    if not hint.startswith("did you mean"):
        hint = nearest(terms[0].lstrip("!&"), names)
    return f"{where}: {some_of(terms)} matches no host and no group; {hint}"
