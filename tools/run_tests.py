"""Every test that CI runs, suite by suite, with one closing line: `make test`.

A suite that fails does not hide the others; the exit code is 1 if any did.
Arguments name the suites to run, all of them when there is none.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Callable, NamedTuple

from tools.play import ROOT, VENV, environment, lab

OUT = ROOT / "build" / "test"


class Count(NamedTuple):
    """How many tests of a suite ended how."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def plus(self, other: Count) -> Count:
        return Count(*(mine + theirs for mine, theirs in zip(self, other)))


def run_pytest(name: str, *paths: str, **variables: str) -> Count:
    """Run one pytest suite with more environment variables; a run that ends without a report counts as one failure."""
    report = OUT / f"{name}.xml"
    report.unlink(missing_ok=True)
    command = [str(VENV / "python"), "-m", "pytest", "-q", f"--junitxml={report}", *paths]
    settings = {**environment(), **variables}
    rc = subprocess.run(command, cwd=ROOT, env=settings, stdin=subprocess.DEVNULL, check=False).returncode
    if not report.exists():
        return Count(failed=1)
    count = read_report(report)
    return count if rc == 0 or count.failed else count.plus(Count(failed=1))


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
    for scenario in sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")):
        print(f"molecule test -s {scenario}", flush=True)
        command = [str(VENV / "molecule"), "test", "-s", scenario]
        rc = subprocess.run(command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, check=False).returncode
        print(f"molecule scenario {scenario}: {'passed' if rc == 0 else f'FAILED with {rc}'}", flush=True)
        total = total.plus(Count(passed=1) if rc == 0 else Count(failed=1))
    return total


def run_lab() -> Count:
    """Boot the test fleet, then test the lab itself; what needs the fleet later fails by itself if this did."""
    booted = lab("up").returncode == 0
    found = run_pytest("fleet", "tests/lab/test_lab.py", "tests/lab/test_live.py", "tests/lab/test_clock.py",
                       "tests/lab/test_old_openssh.py")  # fmt: skip
    return (Count(passed=1) if booted else Count(failed=1)).plus(found)


def run_images() -> Count:
    """The images of the test fleet, so that nothing waits for them later."""
    return Count(passed=1) if lab("build").returncode == 0 else Count(failed=1)


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


# In this order: the kill tests begin with what the rollout tests leave behind.
FAULTS = ("rollout", "kill", "reboot")
SUITES: dict[str, Callable[[], Count]] = {
    "unit": lambda: run_pytest("unit", "tests/unit", "tests/matrix"),
    "loader": lambda: run_pytest("loader", "tests/loader", "tests/verifiers"),
    "soak": lambda: run_pytest("soak", "tests/soak"),
    "sanitize": run_sanitized,
    "integration": lambda: run_pytest("integration", "tests/integration"),
    "host": lambda: run_pytest("host", "tests/host"),
    "oracle": lambda: run_oracle("here"),
    "fleet": run_lab,
    "molecule": run_molecule,
    "faults": lambda: run_pytest("faults", *(f"tests/faults/test_{name}.py" for name in FAULTS)),
}


# What loads no program and is not hurt by company runs beside a suite that leaves a core free, and is told behind it.
BESIDE: dict[str, Callable[[], Count]] = {
    "fuzz": lambda: run_pytest("fuzz", "tests/fuzz/test_fuzz.py"),
    "images": run_images,
}
HOSTS_BESIDE = "integration"
BESIDE_LOG = OUT / "beside.log"


# Too slow for every run: `make test-lab` and `make fuzz`.
SLOW: dict[str, Callable[[], Count]] = {
    "features": run_features,
    "oracles": lambda: run_oracle("here,k510,k61a,k612,k73"),
    "valgrind": lambda: run_pytest("valgrind", "tests/fuzz/test_valgrind.py"),
    "budgets": run_budgets,
    "verifiers": run_verifiers,
    "flood": run_flood,
    "lease": lambda: run_pytest("lease", "tests/faults/test_lease.py"),
    "planned": lambda: run_pytest("planned", "tests/faults/test_planned.py"),
}


def begin_beside() -> subprocess.Popen[bytes]:
    """Start what runs beside another suite."""
    print(f"=== beside it: {', '.join(BESIDE)}, told behind it ({BESIDE_LOG})", flush=True)
    with BESIDE_LOG.open("wb") as log:
        command = [sys.executable, "-m", "tools.run_tests", *BESIDE]
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


def run_suite(name: str) -> Count:
    """One suite, with a line before and behind it."""
    print(f"=== suite {name}", flush=True)
    started = time.monotonic()
    count = {**SUITES, **BESIDE, **SLOW}[name]()
    seconds = time.monotonic() - started
    print(f"=== suite {name}: {count.passed} passed, {count.failed} failed, {count.skipped} skipped "
          f"in {seconds:.0f} s", flush=True)  # fmt: skip
    return count


def main(names: list[str]) -> int:
    known = [*SUITES, *BESIDE, *SLOW]
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"run_tests: no suite {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    OUT.mkdir(parents=True, exist_ok=True)
    total = Count()
    for name in names or SUITES:
        beside = begin_beside() if not names and name == HOSTS_BESIDE else None
        total = total.plus(run_suite(name))
        if beside is not None:
            total = total.plus(end_beside(beside))
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
