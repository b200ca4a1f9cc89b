# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tests can see a fault: those that ran its function, or opened its file, once, when nothing was wrong."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Callable, Collection, Iterable, Mapping, Sequence

from tools.mutants.areas import Area
from tools.mutants.copy import Copy
from tools.mutants.fault import Fault

# {test file: what its run recorded}; each is kept in a file of its own.
Map = Mapping[str, Mapping[str, Any]]


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def record(copy: Copy, test: str, calls: bool, slow: bool, limit: float = 1800) -> dict[str, Any]:
    """Run one test file: how each test of it ended, who opened which file and, with `calls`, ran which function.

    `slow`: also those that are marked so.
    """
    folder = copy.root.parent / "seen"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o1777)
    trace = copy.root / "tools/mutants/trace"
    path = f"{trace}:{copy.root}:{copy.root}/collections"
    # Tests give the processes that they start a PYTHONPATH of their own, which has one of these folders.
    beside = [folder / "sitecustomize.py" for folder in (copy.root, copy.root / "collections") if folder.is_dir()]
    for place in beside:
        shutil.copy(trace / "sitecustomize.py", place)
    try:
        copy.run(
            [test], limit, "-p", "seen_plugin", *([] if slow else ["-m", "not slow"]), PYTHONPATH=path,
            EBPF_FLEET_SEEN=str(folder), EBPF_FLEET_SEEN_CALLS="1" if calls else "",
        )  # fmt: skip
    finally:
        for place in beside:
            place.unlink()
    ends, seen = {}, set()
    for file in folder.iterdir():
        if file.name == "ends.json":
            ends = json.loads(file.read_bytes())
        else:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            seen |= {tuple(line.split("\t")) for line in lines if line.count("\t") == 2}
        file.unlink()
    files = {
        path: sha((copy.root / path).read_bytes()) for path in {row[1] for row in seen} if (copy.root / path).is_file()
    }
    return {
        "sha": sha((copy.root / test).read_bytes()),
        "calls": calls,
        "slow": slow,
        "files": dict(sorted(files.items())),
        "ends": ends,
        "seen": sorted(row for row in seen if row[1] in files),
    }


def fresh(entry: Mapping[str, Any] | None, root: Path, test: str, calls: bool, slow: bool) -> bool:
    """Does what was recorded still hold, and is it enough: the same test file, and the same files that it ran?"""
    if entry is None or entry["calls"] < calls or entry.get("slow", False) < slow:
        return False
    if entry["sha"] != sha((root / test).read_bytes()):
        return False
    return all(
        (root / path).is_file() and sha((root / path).read_bytes()) == had for path, had in entry["files"].items()
    )


def complete(
    stored: Path, copy: Copy, tests: Mapping[str, bool], say: Callable[[str], None], slow: Collection[str] = ()
) -> dict[str, Any]:
    """The map of these test files, recorded where it does not hold; each in a file of its own, written at once.

    True stands for a file of which each call is to be known: to note them takes its runs several times as long.
    `slow` are the files of which the tests that are marked slow run too.
    """
    stored.mkdir(parents=True, exist_ok=True)
    known: dict[str, Any] = {}
    # Runs at once share the work: what another one records now comes last, when there is nothing else to do.
    waiting = list(tests.items())
    while waiting:
        later: list[tuple[str, bool]] = []
        for test, calls in waiting:
            place = stored / (test.replace("/", ".") + ".json")
            with place.with_suffix(".lock").open("a") as lock:
                if not _took(lock.fileno(), is_patient=len(later) == len(waiting) - 1):
                    later.append((test, calls))
                    continue
                entry = json.loads(place.read_bytes()) if place.exists() else None
                if not fresh(entry, copy.root, test, calls, test in slow):
                    entry = record(copy, test, calls, test in slow)
                    say(_told(test, entry))
                    new = place.with_suffix(".new")
                    new.write_text(json.dumps(entry), encoding="utf-8")
                    new.replace(place)
                known[test] = entry
        waiting = later
    return known


def _took(lock: int, is_patient: bool) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if is_patient else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _told(test: str, entry: Mapping[str, Any]) -> str:
    bad = sorted(name for name, (outcome, _) in entry["ends"].items() if outcome == "failed")
    lines = [f"\n  fails without a fault, not used: {name}" for name in bad]
    return f"recorded {test}: {len(entry['ends'])} tests{''.join(lines)}"


def passing(entry: Mapping[str, Any]) -> dict[str, float]:
    """{test: seconds} of those that passed."""
    return {name: spent for name, (outcome, spent) in entry["ends"].items() if outcome == "passed"}


def digest(tests: Iterable[str], known: Map) -> str:
    """Which tests these are and what their files hold: a survivor is tried again when either is another."""
    return sha("".join(f"{test} {known[test.split('::')[0]]['sha']}\n" for test in sorted(tests)).encode())


def tests_of(fault: Fault, area: Area, known: Map) -> dict[str, float]:
    """{test: seconds} of what can see the fault, in the order in which it is best run."""
    if not area.traced:
        stem = Path(fault.path).stem.split(".")[0]
        listed = sorted(area.tests, key=lambda test: stem not in Path(test).stem)
        return {name: spent for test in listed if test in known for name, spent in passing(known[test]).items()}
    near: dict[str, float] = {}
    far: dict[str, float] = {}
    for test in area.tests:
        entry = known.get(test)
        if entry is None or fault.path not in entry["files"]:
            continue
        good = passing(entry)
        ran = _who_ran(entry["seen"], fault)
        near.update({name: good[name] for name in ran if name in good})
        # What stands outside of functions is run by the import; whoever has imported it may see it.
        if (not fault.scope and area.language == "python") or "" in ran:
            far.update(good)
    by_time = dict(sorted(near.items(), key=lambda one: one[1]))
    return {
        **by_time,
        **{name: spent for name, spent in sorted(far.items(), key=lambda one: one[1]) if name not in near},
    }


# So many files of tests are run before all others.
NEAREST = 3


def parts(
    fault: Fault, tests: Mapping[str, float], known: Map, noticed: Mapping[str, int]
) -> tuple[list[str], list[str]]:
    """The tests in two parts, to be run one after the other: the first few files notice most faults by themselves.

    First come files of tests that bear the name of the source, then those of which the largest share was chosen;
    within a part the tests that `noticed` the most faults of this file so far.
    """
    stem = Path(fault.path).stem.split(".")[0]
    chosen: dict[str, int] = {}
    for test in tests:
        chosen[test.split("::")[0]] = chosen.get(test.split("::")[0], 0) + 1
    ranks = {
        file: (stem not in Path(file).stem, -count / max(1, len(passing(known[file]))))
        for file, count in chosen.items()
    }
    first = sorted(ranks, key=lambda file: ranks[file])[:NEAREST]
    ordered = sorted(tests, key=lambda test: -noticed.get(test, 0))
    return (
        [test for test in ordered if test.split("::")[0] in first],
        [test for test in ordered if test.split("::")[0] not in first],
    )


def _who_ran(seen: Sequence[Sequence[str]], fault: Fault) -> set[str]:
    """The tests under which the function was called; outside of functions, those that called any of the file."""
    return {
        test for test, path, name in seen
        if path == fault.path and (not fault.scope or name == fault.scope or name.startswith(f"{fault.scope}."))
    }  # fmt: skip
