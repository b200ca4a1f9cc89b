# SPDX-License-Identifier: GPL-3.0-or-later
"""What the run says: shares, survivors, reasons, and whether it is enough."""

from __future__ import annotations

from typing import Any, Callable, Iterable, Mapping, NamedTuple, Sequence

from tools.mutants.fault import Fault

# Percent of the faults of a language, and of each area, that tests must catch.
LANGUAGE_LIMIT, AREA_LIMIT = 90.0, 80.0
CAUGHT = ("caught", "hung")
# What counts neither way: it was never a fault.
NOTHING = ("invalid",)


class Share(NamedTuple):
    caught: int = 0
    survived: int = 0

    @property
    def percent(self) -> float | None:
        """None where nothing was tried: that is not 100."""
        tried = self.caught + self.survived
        return 100 * self.caught / tried if tried else None


def accepts(entry: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
    """Is this result the fault that the entry gives a reason for?"""
    return all(entry[key] == result[key] for key in ("file", "before", "after"))


def shares(
    results: Iterable[Mapping[str, Any]], accepted: Sequence[Mapping[str, Any]], by: Callable[[str], str]
) -> dict[str, Share]:
    """{what `by` makes of the area's name: share}; an accepted fault that nothing can notice counts for nothing."""
    found: dict[str, Share] = {}
    for one in results:
        share = found.setdefault(by(one["area"]), Share())
        if one["outcome"] in CAUGHT:
            share = share._replace(caught=share.caught + 1)
        elif one["outcome"] not in NOTHING and not any(e["equivalent"] and accepts(e, one) for e in accepted):
            share = share._replace(survived=share.survived + 1)
        found[by(one["area"])] = share
    return found


def entry_faults(accepted: object) -> list[str]:
    """What is wrong with the form of accepted.yml's list."""
    if not isinstance(accepted, list):
        return ["accepted.yml is not a list"]
    wrong = []
    for at, entry in enumerate(accepted, 1):
        keys = {"file": str, "before": str, "after": str, "equivalent": bool, "reason": str}
        if not isinstance(entry, dict) or set(entry) != set(keys):
            wrong.append(f"entry {at} does not have exactly {', '.join(keys)}")
        elif not all(isinstance(entry[key], kind) for key, kind in keys.items()) or not entry["reason"].strip():
            wrong.append(f"entry {at}: a value is empty or of another type")
    return wrong


def stale(accepted: Iterable[Mapping[str, Any]], possible: Callable[[str], Iterable[tuple[Fault, str]]]) -> list[str]:
    """Entries that no rule makes any more. `possible` gives each fault of a file with the file's text."""
    told = []
    made: dict[str, set[tuple[str, str]]] = {}
    for entry in accepted:
        file = entry["file"]
        if file not in made:
            made[file] = {(fault.before(text), fault.after(text)) for fault, text in possible(file)}
        if (entry["before"], entry["after"]) not in made[file]:
            told.append(f"accepted.yml: {file} has no such fault any more: {entry['before']}  =>  {entry['after']}")
    return told


def passed_over(accepted: Iterable[Mapping[str, Any]], drawn: Sequence[tuple[Fault, str]]) -> set[Fault]:
    """The faults that these entries mean, where each means one alone: what reads alike elsewhere in a file is tried."""
    wanted = {(entry["file"], entry["before"], entry["after"]) for entry in accepted}
    meant: dict[tuple[str, str, str], list[Fault]] = {}
    for fault, text in drawn:
        words = (fault.path, fault.before(text), fault.after(text))
        if words in wanted:
            meant.setdefault(words, []).append(fault)
    return {faults[0] for faults in meant.values() if len(faults) == 1}


def caught_though_accepted(accepted: Iterable[Mapping[str, Any]], results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Entries whose fault a test notices by now: the reason is not true any more."""
    return [
        f"accepted.yml: {entry['file']}: {one['by'] or 'a test'} notices this: {entry['before']}  =>  {entry['after']}"
        for entry in accepted for one in results if accepts(entry, one) and one["outcome"] in CAUGHT
    ]  # fmt: skip


def shortfalls(areas: Mapping[str, Share], languages: Mapping[str, Share]) -> list[str]:
    """One sentence for each language and area that has less than its limit, or of which nothing was tried."""
    told = []
    for what, limit, found in (("language", LANGUAGE_LIMIT, languages), ("area", AREA_LIMIT, areas)):
        for name, share in sorted(found.items()):
            percent = share.percent
            if percent is None:
                told.append(f"{what} {name}: nothing was tried")
            elif percent < limit:
                told.append(f"{what} {name}: {percent:.1f} % caught, {limit:.0f} % are needed")
    return told


def table(areas: Mapping[str, Share]) -> str:
    lines = [f"{'area':<24} {'tried':>5} {'caught':>6} {'share':>7}"]
    for name, share in sorted(areas.items()):
        percent = "-" if share.percent is None else f"{share.percent:.1f} %"
        lines.append(f"{name:<24} {share.caught + share.survived:>5} {share.caught:>6} {percent:>7}")
    return "\n".join(lines)


def survivor(one: Mapping[str, Any], accepted: Sequence[Mapping[str, Any]]) -> str:
    reason = next((entry["reason"].strip() for entry in accepted if accepts(entry, one)), "no reason given")
    ran = f"{one['ran']} tests ran" if one["ran"] else "no test runs this"
    return (
        f"{one['file']}:{one['line']}: {one['operator']} ({ran})\n  - {one['before']}\n  + {one['after']}\n  = {reason}"
    )
