# SPDX-License-Identifier: GPL-3.0-or-later
"""An older commit's benchmarks beside this tree's, in one run: `make bench-against OLD=REVISION`.

Each benchmark runs in both trees, right after each other and in turns, as the machine's pace changes. Two ratios are
printed for each row, both new / old: of ours alone, and of ours to the peer in the same run, which takes the
machine's pace out. Writes build/bench/against.json, a list of {name, unit, old, new, ratio, against_peer}.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from tests.support.play import ROOT
from tools.bench.machine import say
from tools.bench.report import Result
from tools.bench.run import BENCHES

OUT = ROOT / "build/bench/against.json"
CACHE = ROOT / ".cache"
LINE = "{name:64} {old!s:>12} {new!s:>12} {unit:12} {ratio!s:>7} {against_peer!s:>12}"


def compared(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[Result]:
    """Rows of several runs of both, medians by name in the new one's order; null where one has no such figure."""
    names = dict.fromkeys(each["name"] for each in [*new, *old])
    return [_row(name, _of(old, name), _of(new, name)) for name in names]


def _of(rows: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    return [each for each in rows if each["name"] == name]


def _row(name: str, old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> Result:
    before, after = _median(old, "ours"), _median(new, "ours")
    return {
        "name": name,
        "unit": (new or old)[0]["unit"],
        "old": before,
        "new": after,
        "ratio": _ratio(after, before),
        "against_peer": _ratio(_median(new, "ratio"), _median(old, "ratio")),
    }


def _median(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    known = [each[key] for each in rows if each.get(key) is not None]
    return round(statistics.median(known), 4) if known else None


def _ratio(new: float | None, old: float | None) -> float | None:
    return round(new / old, 3) if new is not None and old else None


@contextmanager
def tree_of(revision: str) -> Iterator[Path]:
    """That commit's files, built, in a temporary folder that goes with the context."""
    with tempfile.TemporaryDirectory(prefix="ebpf-fleet-old-") as folder:
        tree = Path(folder) / "tree"
        _git("worktree", "add", "--quiet", "--detach", str(tree), revision)
        try:
            tree.parent.chmod(0o755)
            (tree / ".cache").symlink_to(CACHE)
            say(f"builds {revision}")
            subprocess.run(["make", "-s", "-C", str(tree / "bpf")], check=True)
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _git(*words: str) -> None:
    subprocess.run(["git", "-C", str(ROOT), *words], check=True)


def measure(tree: Path, name: str) -> list[Result]:
    """One benchmark in that tree; none of its rows where that tree has no such benchmark."""
    results = tree / "build/bench/results.json"
    results.unlink(missing_ok=True)
    paths = {"PYTHONPATH": f"{tree}:{tree / 'collections'}", "ANSIBLE_COLLECTIONS_PATH": str(tree / "collections")}
    command = [sys.executable, "-m", "tools.bench", name]
    done = subprocess.run(command, cwd=tree, env={**os.environ, **paths}, stdout=subprocess.DEVNULL, check=False)
    if done.returncode or not results.exists():
        say(f"{name}: no figures from {tree} (exit {done.returncode})")
        return []
    found: list[Result] = json.loads(results.read_text())
    return found


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.against", description=__doc__.partition("\n")[0])
    parser.add_argument("revision", help="the older commit")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHES)}; all when none is named")
    parser.add_argument("--rounds", type=int, default=2, help="how often each runs in either tree")
    given = parser.parse_args(words)
    old: list[Result] = []
    new: list[Result] = []
    print(LINE.format(name="name", old="old", new="new", unit="unit", ratio="new/old", against_peer="beside peer"))
    with tree_of(given.revision) as tree:
        for name in given.names or BENCHES:
            both = {tree: [], ROOT: []}  # type: dict[Path, list[Result]]
            for turn in range(given.rounds):
                for where in (tree, ROOT) if turn % 2 == 0 else (ROOT, tree):
                    both[where] += measure(where, name)
            for row in compared(both[tree], both[ROOT]):
                print(LINE.format(**row), flush=True)
            old, new = old + both[tree], new + both[ROOT]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(compared(old, new), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
