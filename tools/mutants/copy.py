# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of the tree in which a fault is planted and tests run; the tree itself is never touched."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Iterable, Iterator, Mapping, NamedTuple, Sequence

from tools.mutants.fault import Fault

# A cached compilation is told from its source by whole seconds and size: a fault needs a second of its own.
FIRST_TIME = 1_000_000_000
NOT_FOUND = 4
PR_SET_CHILD_SUBREAPER = 36


# Two runs at once, of different areas, take turns with the tests that load programs or look at what is loaded.
KERNEL_LOCK = Path("/run/lock/ebpf-fleet-mutants")
FREE = re.compile(r"^pytestmark = (?:\[[^]]*?)?pytest\.mark\.apart\b", re.M)


class Ran(NamedTuple):
    """How a run of tests ended: passed, failed, hung; `by` is the first test that failed."""

    ended: str
    by: str
    seconds: float


class Copy:
    def __init__(self, source: Path, folder: Path) -> None:
        self.source, self.root = source, folder / "tree"
        self.clock = FIRST_TIME
        _git("clone", "--quiet", "--shared", str(source), str(self.root))
        for name in _git("-C", str(source), "ls-files", "-z", "-mo", "--exclude-standard").split("\0"):
            if name and (source / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / name, self.root / name)
            elif name:
                (self.root / name).unlink(missing_ok=True)
        self._take_build()
        if not (self.root / ".cache").exists() and Path(sys.prefix).name == "venv":
            (self.root / ".cache").symlink_to(Path(sys.prefix).parent)

    def _take_build(self) -> None:
        """What is built already, as old as there and beside sources as old as there: make builds only what it must."""
        for name in ("loader", "loader-obj", "features", "driver-obj"):
            if (self.source / "build" / name).is_dir():
                shutil.copytree(self.source / "build" / name, self.root / "build" / name)
        for depends in (self.root / "build").glob("*-obj/**/*.d"):
            had = depends.stat()
            text = depends.read_text(encoding="utf-8").replace(f"{self.source}/", f"{self.root}/")
            depends.write_text(text, encoding="utf-8")
            os.utime(depends, ns=(had.st_atime_ns, had.st_mtime_ns))
        for name in _git("-C", str(self.root), "ls-files", "-z", "bpf", "tests/loader").split("\0"):
            if name and (self.source / name).is_file():
                shutil.copystat(self.source / name, self.root / name)

    def text(self, path: str) -> str:
        return (self.root / path).read_text(encoding="utf-8")

    def write(self, path: str, text: str) -> None:
        (self.root / path).write_text(text, encoding="utf-8")
        if path.endswith(".py"):
            self.clock += 1
            os.utime(self.root / path, (self.clock, self.clock))

    @contextlib.contextmanager
    def planted(self, fault: Fault) -> Iterator[None]:
        """The fault stands in the file meanwhile."""
        text = self.text(fault.path)
        self.write(fault.path, fault.apply(text))
        try:
            yield
        finally:
            self.write(fault.path, text)

    def builds(self) -> bool:
        """Build the loader and the objects; False when a compiler refused."""
        done = subprocess.run(
            ["make", "-s", "-C", str(self.root / "bpf")],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        return done.returncode == 0

    def parses(self, path: str) -> bool:
        """Is a shell script one still? Its parts need not be whole alone, so that only a part that was is judged."""
        return subprocess.run(["sh", "-n", str(self.root / path)], capture_output=True, check=False).returncode == 0

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        root = str(self.root)
        own = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{root}:{root}/collections",
            "ANSIBLE_CONFIG": f"{root}/ansible.cfg",
            "ANSIBLE_COLLECTIONS_PATH": f"{root}/collections",
            "_ANSIBLE_TEMPLAR_UNTRUSTED_TEMPLATE_BEHAVIOR": "error",
            "ANSIBLE_INJECT_FACT_VARS": "false",
        }
        return {**os.environ, **own, **more}

    def run(self, tests: Sequence[str], limit: float, *options: str, **variables: str) -> Ran:
        """Run the tests in their order until one fails; after `limit` seconds the whole run is killed."""
        with _kernel() if self.shares_kernel(tests) else contextlib.nullcontext():
            return self._run(tests, limit, options, variables)

    def shares_kernel(self, tests: Iterable[str]) -> bool:
        """Does one of these use this machine's kernel as others do? The unit tests do not; of others it is marked."""
        files = {test.split("::")[0] for test in tests if not test.startswith("tests/unit/")}
        texts = [self.text(file) for file in sorted(files)]
        return any(not FREE.search(text) or "pytest.mark.kernel" in text for text in texts)

    def _run(self, tests: Sequence[str], limit: float, options: Sequence[str], variables: Mapping[str, str]) -> Ran:
        listed = self.root.parent / "tests.txt"
        listed.write_text("".join(f"{test}\n" for test in tests), encoding="utf-8")
        began = time.monotonic()
        others = _children()
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line", *options, f"@{listed}"]
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as out:
            process = subprocess.Popen(
                command, cwd=self.root, env=self.environment(variables), stdin=subprocess.DEVNULL,
                stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                return Ran("hung", "", time.monotonic() - began)
            finally:
                _end(process, others)
            out.seek(0)
            said = out.read()
        if code == NOT_FOUND and any("::" in test for test in tests):
            # The fault changed how tests are called: a table of the product names the cases.
            return self._run(list(dict.fromkeys(test.split("::")[0] for test in tests)), limit, options, variables)
        failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", said, re.M)
        return Ran("failed" if code else "passed", failed.group(1) if failed else "", time.monotonic() - began)


@contextlib.contextmanager
def _kernel() -> Iterator[None]:
    """Wait for the turn, however long: the time counts for no limit."""
    with KERNEL_LOCK.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    # flock(2) is not fair: whoever asks again at once would get it before those that wait.
    time.sleep(0.2)


def adopt() -> None:
    """Make what a run's processes leave behind, whatever group they chose, children of this process."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _end(process: subprocess.Popen[bytes], others: list[int]) -> None:
    """End a run and all that it started: a loader that stays would hold its programs under the next fault."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    while left := [pid for pid in _children() if pid not in others]:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _children() -> list[int]:
    """Of this process; a child's own come here once that is gone."""
    lists = [task / "children" for task in Path("/proc/self/task").iterdir()]
    return [int(pid) for listed in lists for pid in listed.read_text(encoding="ascii").split()]


@contextlib.contextmanager
def copied(source: Path) -> Iterator[Copy]:
    with tempfile.TemporaryDirectory(prefix="ebpf-fleet-mutants-") as folder:
        os.chmod(folder, 0o755)  # tests run programs as other users
        yield Copy(source, Path(folder))


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout
