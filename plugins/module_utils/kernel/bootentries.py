# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Boot Loader Specification entries: how they read, and which one systemd-boot starts. Pure.

Sources: UAPI.1 (Boot Loader Specification: keys, file names, boot counting, sorting), UAPI.10 (version
format) and systemd-boot's own selection (src/boot/efi/boot.c, `config_select_default_entry` and
`boot_entry_compare`). Names are compared without regard to case, as the boot loader does.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from typing import Iterable, Mapping, NamedTuple, Sequence

# NAME+LEFT.conf or NAME+LEFT-DONE.conf
_COUNTED = re.compile(r"(?P<name>.+)\+(?P<left>[0-9]+)(?:-(?P<done>[0-9]+))?")
_TOLD = re.compile(r"[A-Za-z0-9.~^-]")


class Entry(NamedTuple):
    """One entry: its identifier (`NAME.conf`, without a counter), its fields, and its boot counter.

    `tries` is None for an entry that does not count; 0 for one that failed as often as it may.
    """

    identity: str
    fields: Mapping[str, str]
    tries: int | None = None
    done: int = 0


def parse_entry(file_name: str, text: str) -> Entry:
    """An entry by its file's name, which carries the counter, and its text."""
    stem = file_name[: -len(".conf")] if file_name.endswith(".conf") else file_name
    counted = _COUNTED.fullmatch(stem)
    if counted is None:
        return Entry(file_name, parse_fields(text))
    tries, done = int(counted["left"]), int(counted["done"] or 0)
    return Entry(counted["name"] + ".conf", parse_fields(text), tries, done)


def parse_fields(text: str) -> dict[str, str]:
    """{key: value}; any white space parts the two. Of `options`, which may repeat, all count in order."""
    fields: dict[str, str] = {}
    for line in text.lstrip("\ufeff").splitlines():
        words = line.strip().split(None, 1)
        if not words or words[0].startswith("#"):
            continue
        key, value = words[0], words[1].strip() if len(words) > 1 else ""
        fields[key] = f"{fields[key]} {value}" if key == "options" and key in fields else value
    return fields


def matches(pattern: str, entry: Entry) -> bool:
    """Does a pattern of loader.conf or an EFI variable name this entry? Case does not count."""
    return fnmatch.fnmatchcase(entry.identity.lower(), pattern.lower())


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """The entries as the menu shows them; without a default the first one starts."""
    return sorted(entries, key=functools.cmp_to_key(_compare))


def _compare(one: Entry, other: Entry) -> int:
    """Entries without a try last; then sort key, machine and newest version, else by name, newest first."""
    if (one.tries == 0) != (other.tries == 0):
        return 1 if one.tries == 0 else -1
    keys = [entry.fields.get("sort-key") for entry in (one, other)]
    if (keys[0] is None) != (keys[1] is None):
        return 1 if keys[0] is None else -1
    order = _compare_sorted(one, other) if keys[0] is not None else 0
    return order or -compare_versions(one.identity.lower(), other.identity.lower()) or _compare_tries(one, other)


def _compare_sorted(one: Entry, other: Entry) -> int:
    for key in ("sort-key", "machine-id"):
        pair = [entry.fields.get(key, "").lower() for entry in (one, other)]
        if pair[0] != pair[1]:
            return -1 if pair[0] < pair[1] else 1
    return -compare_versions(one.fields.get("version", ""), other.fields.get("version", ""))


def _compare_tries(one: Entry, other: Entry) -> int:
    if one.tries is None or other.tries is None:
        return 0
    return (other.tries - one.tries) or (one.done - other.done)


def compare_versions(one: str, other: str) -> int:
    """Negative, 0 or positive, by UAPI.10: `~` before the end, `-`, `^` and `.` after it, numbers as numbers."""
    left, right = _parts(one), _parts(other)
    for mine, theirs in zip(left, right):
        if mine != theirs:
            return -1 if mine < theirs else 1
    return 0


# What stands for the end of the text among separators; the marks in the order of the specification.
_RANK = {"~": 0, "": 1, "-": 2, "^": 3, ".": 4}


def _parts(text: str) -> list[tuple[int, int, str]]:
    """Comparable parts: (rank, number, letters). A number is after letters, and letters after a separator."""
    kept = "".join(_TOLD.findall(text))
    parts = []
    for word in re.findall(r"[0-9]+|[A-Za-z]+|[.~^-]", kept):
        if word.isdigit():
            parts.append((6, int(word), ""))
        elif word.isalpha():
            parts.append((5, 0, word))
        else:
            parts.append((_RANK[word], 0, ""))
    return [*parts, (_RANK[""], 0, "")]


class Wishes(NamedTuple):
    """What systemd-boot is told, in the order in which it asks: EFI variables, then loader.conf; None where unset.

    `last_booted` is the variable that `@saved` stands for.
    """

    oneshot: str | None = None
    default_variable: str | None = None
    default_file: str | None = None
    last_booted: str | None = None


def select(entries: Sequence[Entry], wishes: Wishes) -> tuple[Entry | None, str]:
    """(the entry that starts next, or None where that cannot be told, and why)."""
    menu = in_order(entries)
    asked = (
        ("EFI variable LoaderEntryOneShot", wishes.oneshot),
        ("EFI variable LoaderEntryDefault", wishes.default_variable),
        ("default of loader.conf", wishes.default_file),
    )
    for how, pattern in asked:
        if not pattern:
            continue
        named = wishes.last_booted if pattern == "@saved" else pattern
        if named is None or named.startswith("@") or named.startswith("auto-"):
            return None, f"{how} is {pattern}, and what that starts cannot be read here"
        found = next((entry for entry in menu if matches(named, entry)), None)
        if found is not None:
            return found, f"{how} {pattern} names loader entry {found.identity}{_counter(found)}"
    if not menu:
        return None, "there is no loader entry"
    return menu[0], f"loader entry {menu[0].identity}{_counter(menu[0])}, the first in systemd-boot's order"


def _counter(entry: Entry) -> str:
    if entry.tries is None:
        return ""
    return f" ({entry.tries} tries left)" if entry.tries else " (no tries left)"
