# SPDX-License-Identifier: GPL-3.0-or-later
"""`make mutants`: plant faults, run the tests that can see each, tell which none noticed. Options in README.md."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Iterable, Mapping

import yaml

from tools.mutants import areas, choose, report, seen
from tools.mutants.areas import ROOT, Area
from tools.mutants.copy import Copy, adopt, copied
from tools.mutants.fault import Fault

OUT = ROOT / "build" / "mutants"
ACCEPTED = ROOT / "tests" / "mutants" / "accepted.yml"
# A run of tests gets this many times what they took without a fault, and no less than the seconds.
PATIENCE, LEAST_LIMIT = 10, 60.0


def say(text: str) -> None:
    print(text, flush=True)


def options(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutants")
    parser.add_argument("--area", default="", help="LANGUAGE, LANGUAGE/NAME or several by comma; all when empty")
    parser.add_argument("--count", type=int, default=460, help="how many faults, over all areas")
    parser.add_argument("--seed", type=int, default=12)
    parser.add_argument("--tests", default="", help="only test files below these paths, by comma, such as tests/unit")
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs found")
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1), help="so many areas at once")
    parser.add_argument("--whole", action="store_true", help="plant what accepted.yml says no test can tell, too")
    given = parser.parse_args(words)
    for name in ("count", "jobs"):
        if getattr(given, name) < 1:
            parser.error(f"--{name}: 1 or more")
    return given


def chosen(all_areas: Mapping[str, Area], named: str) -> dict[str, Area]:
    """The areas that the option means; SystemExit says which name means none."""
    if not named:
        return dict(all_areas)
    found: dict[str, Area] = {}
    for word in named.split(","):
        some = {name: area for name, area in all_areas.items() if name == word or name.startswith(f"{word}/")}
        if not some:
            raise SystemExit(f"make mutants: no area {word}: one of {', '.join(all_areas)}")
        found.update(some)
    return found


def restricted(area: Area, below: str) -> Area:
    return area._replace(tests=[test for test in area.tests if test.startswith(tuple(below.split(",")))])


class Results:
    """results.jsonl: one line for each fault tried, written at once; the last line of a key holds."""

    def __init__(self, path: Path, is_fresh: bool) -> None:
        self.path = path
        self.known: dict[str, dict[str, Any]] = {}
        if is_fresh:
            path.unlink(missing_ok=True)
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                one = json.loads(line)
                self.known[one["key"]] = one

    def find(self, key: str, tests: str) -> dict[str, Any] | None:
        """What is known of a fault. A survivor is tried again when its tests are others."""
        one = self.known.get(key)
        if one is None or (one["outcome"] == "survived" and one["tests"] != tests):
            return None
        return one

    def by(self, path: str) -> Counter[str]:
        """How many faults of a file each test noticed, by what was tried so far."""
        return Counter(one["by"] for one in self.known.values() if one["file"] == path and one["by"])

    def add(self, one: dict[str, Any]) -> None:
        self.known[one["key"]] = one
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(one) + "\n")


def attempt(
    copy: Copy, fault: Fault, area: Area, tests: Mapping[str, float], parts: Iterable[list[str]]
) -> tuple[str, str]:
    """(outcome, the test that noticed): caught, hung, survived or invalid; the tests run in `parts`, as long as none
    of them notices."""
    parsed = not fault.path.endswith(".sh") or copy.parses(fault.path)
    with copy.planted(fault):
        if area.built and not copy.builds():
            return "invalid", ""
        if parsed and fault.path.endswith(".sh") and not copy.parses(fault.path):
            return "invalid", ""
        if not tests:
            return "survived", ""
        for part in parts:
            limit = max(LEAST_LIMIT, PATIENCE * sum(tests[test] for test in part))
            ran = copy.run(part, limit, "-x") if part else None
            if ran is not None and ran.ended != "passed":
                return {"failed": "caught", "hung": "hung"}[ran.ended], ran.by
    return "survived", ""


def apart(copy: Copy, parts: Iterable[list[str]]) -> list[list[str]]:
    """The same tests in the same order, but those that share the kernel last: most faults wait for no turn then."""
    files = {test.split("::")[0] for part in parts for test in part}
    shared = {file for file in files if copy.shares_kernel([file])}
    free = [[test for test in part if test.split("::")[0] not in shared] for part in parts]
    return [*free, [test for part in parts for test in part if test.split("::")[0] in shared]]


def run_area(
    copy: Copy,
    area: Area,
    quota: int,
    seed: int,
    known: seen.Map,
    results: Results,
    passed: Iterable[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Try faults of the area until `quota` of them were ones; those `passed` over do not count."""
    texts = {path: copy.text(path) for path in area.files}
    drawn = choose.order([fault for path, text in texts.items() for fault in areas.faults(path, text)], seed)
    over = report.passed_over(passed, [(fault, texts[fault.path]) for fault in drawn])
    tried: list[dict[str, Any]] = []
    for fault in drawn:
        if sum(one["outcome"] != "invalid" for one in tried) >= quota:
            break
        if fault in over:
            continue
        text = texts[fault.path]
        tests = seen.tests_of(fault, area, known)
        digest = seen.digest(tests, known)
        key = fault.key(text)
        one = results.find(key, digest)
        if one is None:
            parts = seen.parts(fault, tests, known, results.by(fault.path)) if area.traced else [list(tests)]
            parts = apart(copy, parts)
            outcome, by = attempt(copy, fault, area, tests, parts)
            one = {
                "key": key, "area": area.name, "file": fault.path, "operator": fault.operator,
                "before": fault.before(text), "after": fault.after(text),
                "outcome": outcome, "by": by, "ran": len(tests), "tests": digest,
            }  # fmt: skip
            results.add(one)
        tried.append({**one, "line": fault.line(text)})
        if one["outcome"] == "survived":
            say(f"{area.name}: survived: {fault.path}:{fault.line(text)}: {one['before']}  =>  {one['after']}")
    return tried


def possible(path: str) -> Iterable[tuple[Fault, str]]:
    """Every fault of a file of the tree with its text; none where the file is gone."""
    if not (ROOT / path).is_file():
        return []
    text = (ROOT / path).read_text(encoding="utf-8")
    return [(fault, text) for fault in areas.faults(path, text)]


def accepted_entries() -> list[dict[str, Any]]:
    entries = yaml.safe_load(ACCEPTED.read_text(encoding="utf-8"))
    wrong = report.entry_faults(entries)
    if wrong:
        raise SystemExit("\n".join(wrong))
    return list(entries)


# Whose tests take longest come first, so that no run is left alone with them at the end.
LONGEST = ("playbooks", "shell", "c", "bpf")


def at_once(words: list[str], names: Iterable[str], jobs: int) -> None:
    """Try each area in a run of its own, so many at once. They write what they find where this run looks it up."""
    waiting = sorted(names, key=lambda name: [name.startswith(f"{one}/") for one in LONGEST], reverse=True)
    running: dict[int, tuple[str, subprocess.Popen[str]]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name = waiting.pop(0)
                say(f"begins: {name}")
                # The last word holds.
                command = [sys.executable, "-m", "tools.mutants", *words, "--area", name, "--jobs", "1"]
                log = (OUT / f"{name.replace('/', '-')}.log").open("w", encoding="utf-8")
                with log:
                    process = subprocess.Popen(
                        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True
                    )
                running[process.pid] = (name, process)
            ended = [pid for pid, (_name, process) in running.items() if process.poll() is not None]
            for pid in ended:
                name, process = running.pop(pid)
                # 1: it has survivors, which the run as a whole judges.
                say(
                    f"ended: {name}"
                    + ("" if process.returncode in (0, 1) else f", by {process.returncode}: see build/mutants")
                )
            time.sleep(0.2)
    finally:
        for _name, process in running.values():
            process.terminate()
        for _name, process in running.values():
            process.wait()


def close(tried: list[dict[str, Any]], accepted: list[dict[str, Any]], given: argparse.Namespace) -> int:
    """Print and write the report; 1 when it is not enough."""
    by_area = report.shares(tried, accepted, lambda area: area)
    by_language = report.shares(tried, accepted, lambda area: area.split("/")[0])
    survivors = [one for one in tried if one["outcome"] == "survived"]
    wrong = report.shortfalls(by_area, by_language)
    wrong += report.stale(accepted, possible)
    wrong += report.caught_though_accepted(accepted, tried)
    bare = [one for one in survivors if not any(report.accepts(entry, one) for entry in accepted)]
    if bare:
        wrong.append(f"{len(bare)} survivors have no reason in {ACCEPTED.relative_to(ROOT)}")
    for one in survivors:
        say(report.survivor(one, accepted))
    say(report.table(by_area))
    say(report.table(by_language))
    document = {
        "seed": given.seed, "count": given.count, "tests": given.tests or "all",
        "areas": {name: {**share._asdict(), "percent": share.percent} for name, share in by_area.items()},
        "languages": {name: {**share._asdict(), "percent": share.percent} for name, share in by_language.items()},
        "faults": tried, "wrong": wrong,
    }  # fmt: skip
    (OUT / "report.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for sentence in wrong:
        say(f"not enough: {sentence}")
    return 1 if wrong else 0


def main(words: list[str]) -> int:
    given = options(words)
    adopt()
    # Whoever stops the run by a signal gets the same end as by Ctrl-C: no test and no copy stays.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    every = areas.read()
    picked = {name: restricted(area, given.tests) for name, area in chosen(every, given.area).items()}
    accepted = accepted_entries()
    OUT.mkdir(parents=True, exist_ok=True)
    results = Results(OUT / "results.jsonl", given.fresh)
    if given.jobs > 1 and len(picked) > 1:
        at_once([word for word in words if word != "--fresh"], picked, given.jobs)
        results = Results(OUT / "results.jsonl", False)
    # An area's part is the same in a run of its own as in one of all.
    have = {name: sum(len(list(possible(path))) for path in area.files) for name, area in every.items()}
    quotas = choose.shares(have, given.count)
    tried: list[dict[str, Any]] = []
    with copied(ROOT) as copy:
        if any(area.built for area in picked.values()) and not copy.builds():
            raise SystemExit("make mutants: the tree does not build as it is")
        calls = {test: False for area in picked.values() for test in area.tests}
        calls.update({test: True for area in picked.values() if area.language == "python" for test in area.tests})
        slow = {test for area in picked.values() if area.slow for test in area.tests}
        known = seen.complete(OUT / "map", copy, calls, say, slow)
        for name, area in picked.items():
            passed = [] if given.whole else [entry for entry in accepted if entry["equivalent"]]
            tried += run_area(copy, area, quotas[name], given.seed, known, results, passed)
            share = report.shares(tried, accepted, lambda one: one)[name]
            say(f"{name}: {share.caught} of {share.caught + share.survived} caught")
    return close(tried, accepted, given)


if __name__ == "__main__":
    # As an interrupt does: the tests that run are in a session of their own and would go on.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    sys.exit(main(sys.argv[1:]))
