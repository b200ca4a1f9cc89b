# SPDX-License-Identifier: GPL-3.0-or-later
"""Every kernel of the matrix runs the same signed bundle: `make test-matrix`.

Boots the lab's hosts of the group `matrix`, asks each, and this machine with and without its BTF, for its
capability facts and the profiles they predict; lets the loader try every variant and run every feature; writes
build/matrix/matrix.json, .md and .html; fails where a prediction did not come true, a host did not answer,
or kernels are missing. Arguments name the hosts to ask, all of them when there is none.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible_collections.ebpf.fleet.plugins.module_utils.report.matrix import matrix_html, matrix_markdown

from tests.lab import fleet, guest, paths, settings
from tests.lab.errors import LabError
from tests.lab.system import exclusive
from tests.matrix import answers, bundles, document
from tests.matrix.errors import MatrixError
from tests.matrix.places import OUT, WORK, Place, places
from tests.support.play import ROOT

_AT_ONCE = 3
_SPARE_MIB = 1024
_OVERHEAD_MIB = 128


class Matrix:
    """One run: the hosts that are asked, what they answered, and everything that was wrong."""

    def __init__(self, chosen: list[Place], whole: bool) -> None:
        self.started = time.monotonic()
        self.chosen, self.whole = chosen, whole
        self.problems: list[str] = []
        self.absent: list[str] = []
        self.hosts: dict[str, dict[str, Any]] = {}

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started:5.0f} s] {text}", flush=True)

    def miss(self, host: str, text: str) -> None:
        """A host that cannot be made: a failure where it was asked for, else the count of kernels decides."""
        if host in self.absent:
            return
        self.absent.append(host)
        if self.whole:
            self.say(f"absent: {text}")
        else:
            self.wrong(text)

    def wrong(self, text: str) -> None:
        self.problems.append(text)
        self.say(f"wrong: {text}")


def available_mib() -> int:
    """Memory that can be had without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    raise MatrixError("/proc/meminfo has no MemAvailable: the matrix cannot tell how many hosts fit")


def groups(chosen: list[Place], mebibytes: int) -> list[list[Place]]:
    """Hosts that fit into memory together, in order; each group has one at least."""
    made: list[list[Place]] = [[]]
    left = mebibytes
    for place in chosen:
        need = place.host.memory_mib + _OVERHEAD_MIB if place.host else 0
        if made[-1] and need > max(left, 0):
            made.append([])
            left = mebibytes
        made[-1].append(place)
        left -= need
    return made


def buildable(matrix: Matrix, lab: settings.Settings, hosts: list[settings.Host]) -> list[settings.Host]:
    """Those whose kernel and userland can be had; a kernel that the archive no longer has is said."""
    found = []
    for host in hosts:
        try:
            fleet.build(lab, [host])
            found.append(host)
        except (LabError, OSError) as error:
            matrix.miss(host.name, f"{host.name}: kernel {host.kernel.name} is not to be had: {error}")
    return found


def bring_up(matrix: Matrix, lab: settings.Settings, group: list[Place]) -> list[Place]:
    """Boot or restore a group's hosts side by side; one that does not boot is named and left out."""
    with exclusive(paths.LOCK):
        found = buildable(matrix, lab, [place.host for place in group if place.host])
        try:
            if found:
                fleet.up(lab, found, False)
        except (LabError, OSError) as error:
            matrix.wrong(f"not every host booted: {error}")
    return [place for place in group if place.host is None or guest.record(place.name)]


def ask(matrix: Matrix, up: list[Place], bundle: bundles.Bundle, payload: Path) -> None:
    """Facts of all in one play, then each loader; what both say becomes the host's line."""
    matrix.say(f"facts of {', '.join(place.name for place in up)}")
    facts = answers.capabilities(up, bundle)
    matrix.say(f"facts of {len(facts)} hosts are here; loading and running everything there")
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda place: ask_one(matrix, place, facts.get(place.name), payload), up))


def ask_one(matrix: Matrix, place: Place, facts: dict[str, Any] | None, payload: Path) -> None:
    try:
        said = answers.loader(place, payload)
    except (MatrixError, LabError) as error:
        matrix.wrong(str(error))
        return
    if facts is None:
        matrix.wrong(f"{place.name}: no capability facts: see {(OUT / 'facts.log').relative_to(ROOT)}")
        return
    for text in document.contradictions(place.name, said["status"], said["check"], said["programs"]):
        matrix.wrong(text)
    matrix.hosts[place.name] = document.host_entry(facts, said["status"], said["check"])
    reached = [cell["reached"] for cell in matrix.hosts[place.name]["features"].values() if cell["reached"]]
    counts = ", ".join(f"{sum(r['profile'] == p for r in reached)} {p}" for p in ("full", "reduced", "disabled"))
    matrix.say(f"{place.name}: {matrix.hosts[place.name]['kernel']['release']}: {counts} ({said['seconds']} s)")


def lent_btf(matrix: Matrix, lab: settings.Settings) -> None:
    """The BTF that hidden hosts' bundles need, from twins; those must run for it."""
    kernels = {place.twin_kernel for place in matrix.chosen if place.hidden}
    involved = [place for place in matrix.chosen if place.twin_kernel in kernels]
    for text in bundles.collect_btf(bring_up(matrix, lab, involved), platform.machine()):
        matrix.wrong(text)


def run(matrix: Matrix, features_dirs: list[Path], keep: bool) -> dict[str, Any]:
    """Ask everyone and return the matrix. Hosts that were down before are down afterwards, unless kept."""
    lab = settings.load(paths.SETTINGS)
    before = {place.name for place in matrix.chosen if place.host and guest.record(place.name)}
    began_here = [place for place in matrix.chosen if place.host and place.name not in before]
    try:
        matrix.say("hosts whose BTF is lent to their hidden twins")
        lent_btf(matrix, lab)
        matrix.say("building and signing the bundle")
        path, trust = bundles.build(features_dirs)
        bundle = bundles.Bundle(path)
        payload = WORK / "payload.tar"
        bundles.payload(bundle, trust, payload)
        for group in groups(matrix.chosen, available_mib() - _SPARE_MIB):
            ask(matrix, bring_up(matrix, lab, group), bundle, payload)
            if len(matrix.chosen) > len(group):
                put_down(lab, [place for place in group if place in began_here], keep)
    finally:
        put_down(lab, began_here, keep)
    order = [place.name for place in matrix.chosen if place.name in matrix.hosts]
    return document.document(bundle.bundle, bundle.digest, bundle.objects, {n: matrix.hosts[n] for n in order})


def put_down(lab: settings.Settings, began_here: list[Place], keep: bool) -> None:
    hosts = [place.host for place in began_here if place.host and guest.record(place.name)]
    if keep or not hosts:
        return
    with exclusive(paths.LOCK):
        fleet.down(lab, hosts)


def write(doc: dict[str, Any]) -> None:
    (OUT / "matrix.json").write_text(json.dumps(doc, indent=2, sort_keys=True) + "\n")
    (OUT / "matrix.md").write_text(matrix_markdown(doc))
    (OUT / "matrix.html").write_text(matrix_html(doc))


def judge(matrix: Matrix, doc: dict[str, Any]) -> list[str]:
    """Everything that is wrong, in words."""
    found = list(matrix.problems)
    asked = {place.name for place in matrix.chosen} - set(matrix.absent)
    found += [f"{name}: is not in the matrix" for name in sorted(asked - set(doc["hosts"]))]
    found += [document.difference_text(difference) for difference in doc["differences"]]
    if matrix.whole:
        guests = [place for place in matrix.chosen if place.host and place.name in doc["hosts"]]
        releases = [doc["hosts"][place.name]["kernel"]["release"] for place in guests]
        found += document.shortfall(releases, sum(place.hidden for place in guests))
    return found


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python3 -m tools.matrix", description=__doc__.splitlines()[0])
    made.add_argument("hosts", nargs="*", metavar="HOST", help="a host of the matrix; all by default")
    made.add_argument("--keep", action="store_true", help="leave the hosts running")
    made.add_argument("--features", type=Path, action="append", metavar="FOLDER", help="features to build instead")
    return made


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    OUT.mkdir(parents=True, exist_ok=True)
    WORK.mkdir(parents=True, exist_ok=True)
    try:
        chosen = places(settings.load(paths.SETTINGS), options.hosts)
        matrix = Matrix(chosen, not options.hosts)
        doc = run(matrix, options.features or [ROOT / "bpf" / "features"], options.keep)
    except (MatrixError, LabError) as error:
        print(f"matrix: {error}", file=sys.stderr)
        return 1
    write(doc)
    print(document.table(doc))
    wrong = judge(matrix, doc)
    for text in wrong:
        print(f"FAILED {text}")
    cells = sum(len(entry["features"]) for entry in doc["hosts"].values())
    seconds = time.monotonic() - matrix.started
    if matrix.absent:
        print(f"absent, its kernel or image is not to be had: {', '.join(matrix.absent)}")
    print(f"matrix: {len(doc['hosts'])} hosts, {cells} cells, {len(doc['differences'])} differences, "
          f"{len(wrong)} failures in {seconds:.0f} s; see {(OUT / 'matrix.html').relative_to(ROOT)}")  # fmt: skip
    return 1 if wrong or not cells else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
