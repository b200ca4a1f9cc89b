# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests, suite by suite, with one closing table: `make test` (--quick) and `make test-all`.

A suite that fails does not hide the others; the exit code is 1 if any did. Arguments name the suites to run
in full, all of them when there is none. --quick leaves out what is marked `slow` and has two hosts in the lab.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Callable, NamedTuple

from tests.support.play import ROOT, VENV, environment, lab

OUT = ROOT / "build" / "test"
# An old kernel and a new one, which need two of the three userlands.
QUICK_HOSTS = ("k510", "k612")
# The scenario that is for those.
QUICK_SCENARIOS = ("prepare",)


class Count(NamedTuple):
    """How many tests of a suite ended how."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def plus(self, other: Count) -> Count:
        return Count(*(mine + theirs for mine, theirs in zip(self, other)))


def run_pytest(name: str, *paths: str, mark: str = "", workers: int = 1, **variables: str) -> Count:
    """Run one pytest suite, of which only what is marked so; a run that ends without a report counts as one failure.

    `workers` groups of tests run at once, a file's tests one after the other (tests/support/groups.py). `variables` are
    more environment variables.
    """
    report = OUT / f"{name}.xml"
    report.unlink(missing_ok=True)
    marks = " and ".join(filter(None, [mark, "not slow" if is_quick() else ""]))
    chosen = ["-m", marks] if marks else []
    if workers > 1:
        chosen += ["-n", str(workers)]
    command = [str(VENV / "python"), "-m", "pytest", "-q", f"--junitxml={report}", *chosen, *paths]
    # Short, as the paths of sockets below it are bounded. Each pytest takes others' access from the folder above its
    # temporary ones, and the loader's user needs it.
    folders = Path(tempfile.mkdtemp(prefix="ef-"))
    folders.chmod(0o755)
    settings = {**environment(), "PYTEST_DEBUG_TEMPROOT": str(folders), **variables}
    rc = subprocess.run(command, cwd=ROOT, env=settings, stdin=subprocess.DEVNULL, check=False).returncode
    if rc == 0:
        shutil.rmtree(folders, ignore_errors=True)
    if not report.exists():
        return Count(failed=1)
    count = read_report(report)
    return count if rc == 0 or count.failed else count.plus(Count(failed=1))


def is_quick() -> bool:
    """Is only what `make test` promises to be run? What runs beside, a process of its own, is told the same way."""
    return os.environ.get("EBPF_FLEET_QUICK") == "1"


def fleet_hosts() -> tuple[str, ...]:
    """Hosts of the lab that are booted; all of the fleet when none is named."""
    return QUICK_HOSTS if is_quick() else ()


def read_report(report: Path) -> Count:
    """Add up the suites of a JUnit report."""
    total = Count()
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        tests, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        total = total.plus(Count(tests - failed - skipped, failed, skipped))
    return total


def run_molecule() -> Count:
    """Run each Molecule scenario on the test fleet; one scenario counts as one test."""
    total = Count()
    scenarios = sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))
    for scenario in QUICK_SCENARIOS if is_quick() else scenarios:
        print(f"molecule test -s {scenario}", flush=True)
        command = [str(VENV / "molecule"), "test", "-s", scenario]
        rc = subprocess.run(command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, check=False).returncode
        print(f"molecule scenario {scenario}: {'passed' if rc == 0 else f'FAILED with {rc}'}", flush=True)
        total = total.plus(Count(passed=1) if rc == 0 else Count(failed=1))
    return total


def run_lab() -> Count:
    """Boot the test fleet, then test the lab itself; what needs the fleet later fails by itself if this did."""
    booted = lab("up", *fleet_hosts()).returncode == 0
    found = run_pytest("fleet", "tests/lab/test_lab.py", "tests/lab/test_live.py", "tests/lab/test_clock.py",
                       "tests/lab/test_old_openssh.py", EBPF_FLEET_LAB_HOSTS=" ".join(fleet_hosts()))  # fmt: skip
    return (Count(passed=1) if booted else Count(failed=1)).plus(found)


def run_scenarios() -> Count:
    """Everything that a rollout may meet, on real hosts: `make test-scenarios`. Its own fixture boots its guests."""
    return run_pytest("scenarios", "tests/scenarios")


# In this order: the kill tests begin with what the rollout tests leave behind.
FAULTS = ("rollout", "kill", "reboot")


def run_faults() -> Count:
    """Rollouts and kills on the test fleet while things break."""
    paths = [f"tests/faults/test_{name}.py" for name in FAULTS]
    return run_pytest("faults", *paths, EBPF_FLEET_LAB_HOSTS=" ".join(fleet_hosts()))


def run_images() -> Count:
    """The images of the test fleet, so that nothing waits for them later."""
    return Count(passed=1) if lab("build", *fleet_hosts()).returncode == 0 else Count(failed=1)


def run_matrix() -> Count:
    """Every feature on every kernel; the page is one test."""
    command = [str(VENV / "python"), "-m", "tools.matrix"]
    where = {**environment(), "PYTHONPATH": f"{ROOT}:{ROOT / 'collections'}"}
    rc = subprocess.run(command, cwd=ROOT, env=where, stdin=subprocess.DEVNULL, check=False).returncode
    return Count(passed=1) if rc == 0 else Count(failed=1)


def run_features() -> Count:
    """Every feature under a real workload on four kernels, and BCC on a host without BTF: `make test-lab`."""
    hosts = ("k510", "k61a", "k612", "k73", "k61bcc")
    booted = lab("up", *hosts).returncode == 0
    chosen = " or ".join([*(f"{host}-" for host in hosts[:4]), "bcc"])
    found = run_pytest("features", "tests/lab/test_features.py", "tests/lab/test_bcc.py", "-k", chosen)
    return (Count(passed=1) if booted else Count(failed=1)).plus(found)


def run_budgets() -> Count:
    """Every budget really exceeded on two kernels, beside a workload: `make test-lab`."""
    booted = lab("up", "k510", "k612").returncode == 0
    found = run_pytest("budgets", "tests/lab/test_budgets.py")
    return (Count(passed=1) if booted else Count(failed=1)).plus(found)


def run_flood() -> Count:
    """A flood of executions by one user, and fifty of another, on two kernels: `make test-lab`."""
    booted = lab("up", "k510", "k612").returncode == 0
    found = run_pytest("flood", "tests/lab/test_flood.py")
    return (Count(passed=1) if booted else Count(failed=1)).plus(found)


# What runs beside others, and what shares this machine's kernel with all that is loaded into it: pyproject.toml.
APART = "(apart and not kernel)"
SHARED = "(kernel or not apart)"

# The loader's tests wait more than they compute: more of them at once than there are processors. One worker has those
# that count what the whole machine does.
WORKERS = 3
# What loads programs and asks for all that are loaded is one group of tests; beside it is room for one that does not.
GROUPS = 2

# Every parser, and the service through attach, kill, detach and its files.
SANITIZED = ("verify", "desired", "contract", "inspect", "control", "metrics")


def run_sanitized() -> Count:
    """The loader's tests with a loader that watches its own memory; a report fails also where no test looked."""
    reports = OUT / "sanitize"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    reports.chmod(0o1777)  # loaders that gave up root write there too
    built = subprocess.run(["make", "-s", "-C", str(ROOT / "bpf"), "asan"], check=False).returncode
    if built:
        return Count(failed=1)
    where = f"log_path={reports}/report:"
    found = run_pytest(
        "sanitize",
        "tests/fuzz/test_sanitize.py",
        *(
            f"tests/loader/test_{name}.py"
            for name in ("verify", "desired", "contract", "inspect", "control", "metrics")
        ),
        workers=WORKERS,
        EBPF_FLEET_LOADER=str(ROOT / "build" / "loader-asan" / "ebpf-loader"),
        ASAN_OPTIONS=where + "detect_leaks=1:strict_string_checks=1",
        UBSAN_OPTIONS=where + "print_stacktrace=1",
    )
    said = sorted(reports.iterdir())
    for report in said:
        print(report.read_text(errors="replace")[:4000], flush=True)
    return found.plus(Count(failed=len(said)) if said else Count(passed=1))


def run_verifiers() -> Count:
    """Both verifiers over thousands of mutants, with the loader that watches its own memory: `make differential`."""
    if subprocess.run(["make", "-s", "-C", str(ROOT / "bpf"), "asan"], check=False).returncode:
        return Count(failed=1)
    return run_pytest(
        "verifiers",
        "tests/verifiers",
        EBPF_FLEET_LOADER=str(ROOT / "build" / "loader-asan" / "ebpf-loader"),
        EBPF_FLEET_MUTANTS=os.environ.get("EBPF_FLEET_MUTANTS", "40"),
        ASAN_OPTIONS="detect_leaks=1:strict_string_checks=1",
    )


def run_oracle(hosts: str) -> Count:
    """Our answers against libbpf's, bpftool's and real attaches, on the hosts named."""
    return run_pytest("oracle", "tests/oracle", EBPF_FLEET_ORACLE_HOSTS=hosts)


SUITES: dict[str, Callable[[], Count]] = {
    "loader": lambda: run_pytest("loader", "tests/loader", mark=SHARED, workers=WORKERS),
    "soak": lambda: run_pytest("soak", "tests/soak"),
    "sanitize": run_sanitized,
    "integration": lambda: run_pytest("integration", "tests/integration", mark=SHARED, workers=GROUPS),
    "host": lambda: run_pytest("host", "tests/host"),
    "oracle": lambda: run_oracle("here"),
    "fleet": run_lab,
    "molecule": run_molecule,
    "faults": run_faults,
}


# What loads no program and ends no process of the unit: one suite after the other, beside those that do. It waits for
# them where both want the CPU, and is told when all have ended. The images are first: guests boot from them later.
# Two files' tests at once, as they wait, too: guests then find a machine that is theirs.
PAIR = 2
BESIDE: dict[str, Callable[[], Count]] = {
    "images": run_images,
    "unit": lambda: run_pytest("unit", "tests/unit", "tests/matrix", workers=PAIR),
    "apart": lambda: run_pytest(
        "apart", "tests/verifiers", "tests/loader", "tests/integration", mark=APART, workers=PAIR
    ),
    "fuzz": lambda: run_pytest("fuzz", "tests/fuzz/test_fuzz.py"),
}
BESIDE_LOG = OUT / "beside.log"


# Nothing of these is in `make test`.
SLOW: dict[str, Callable[[], Count]] = {
    "features": run_features,
    "oracles": lambda: run_oracle("here,k510,k61a,k612,k73"),
    "valgrind": lambda: run_pytest("valgrind", "tests/fuzz/test_valgrind.py"),
    "budgets": run_budgets,
    "verifiers": run_verifiers,
    "flood": run_flood,
    "lease": lambda: run_pytest("lease", "tests/faults/test_lease.py"),
    "planned": lambda: run_pytest("planned", "tests/faults/test_planned.py"),
    "scenarios": run_scenarios,
    "matrix": run_matrix,
}


def begin_beside() -> subprocess.Popen[bytes]:
    """Start what runs beside the others."""
    print(f"=== beside the rest: {', '.join(BESIDE)}, told at the end ({BESIDE_LOG})", flush=True)
    with BESIDE_LOG.open("wb") as log:
        command = ["nice", "-n", "10", sys.executable, "-m", "tools.run_tests", *BESIDE]
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def end_beside(process: subprocess.Popen[bytes]) -> Count:
    """Wait for it and say what it said; without a closing line it counts as one failure."""
    rc = process.wait()
    text = BESIDE_LOG.read_text(errors="replace")
    print(text, end="", flush=True)
    closing = re.search(r"^(\d+) passed, (\d+) failed, (\d+) skipped\n\Z", text, re.M)
    if not closing:
        return Count(failed=1)
    count = Count(*map(int, closing.groups()))
    return count if rc == 0 or count.failed else count.plus(Count(failed=1))


class Row(NamedTuple):
    """One suite in the closing table."""

    name: str
    count: Count
    seconds: float


def run_suite(name: str) -> Row:
    """One suite, with a line before and behind it."""
    print(f"=== suite {name}", flush=True)
    started = time.monotonic()
    row = Row(name, {**SUITES, **BESIDE, **SLOW}[name](), time.monotonic() - started)
    print(f"=== suite {told(row)}", flush=True)
    return row


def told(row: Row) -> str:
    """A suite's count and time in a line."""
    passed, failed, skipped = row.count
    return f"{row.name}: {passed} passed, {failed} failed, {skipped} skipped in {row.seconds:.0f} s"


def run_all(names: list[str]) -> list[Row]:
    """Run these suites; where all are wanted, some of them beside the others."""
    if names:
        return [run_suite(name) for name in names]
    beside, started = begin_beside(), time.monotonic()
    rows = [run_suite(name) for name in SUITES]
    rows.append(Row("+".join(BESIDE), end_beside(beside), time.monotonic() - started))
    return rows + [run_suite(name) for name in ([] if is_quick() else SLOW)]


def main(words: list[str]) -> int:
    names = [word for word in words if word != "--quick"]
    known = [*SUITES, *BESIDE, *SLOW]
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"run_tests: no suite {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("run_tests: the kernel, namespaces and guests need root; run it as root or with sudo", file=sys.stderr)
        return 2
    if names != words:
        os.environ["EBPF_FLEET_QUICK"] = "1"
    # Make has set this machine up: what setup provides may not be missing (tests/holes.yml).
    os.environ["EBPF_FLEET_SET_UP"] = "1"
    OUT.mkdir(parents=True, exist_ok=True)
    rows = run_all(names)
    total = functools.reduce(Count.plus, (row.count for row in rows))
    if len(rows) > 1:
        print("=== all suites", *map(told, rows), sep="\n    ")
    # The last line is read by whoever runs this beside another suite.
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
