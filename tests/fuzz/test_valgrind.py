# SPDX-License-Identifier: GPL-3.0-or-later
"""The loader under valgrind: what it reads was written, what it was given it gives back, bpf(2) included.

A dynamic build of the same sources, as valgrind knows no static glibc. A definite or indirect leak is an error.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.loader.bundles import Trust
from tests.loader.conftest import run_make
from tests.loader.service import Service, feature_of, make_service, wait_for

ROOT = Path(__file__).resolve().parents[2]
FOUND = 99
# Debian 12's valgrind 3.19 does not look at MAP_LOOKUP_BATCH, LINK_CREATE and ENABLE_STATS; at all others it does.
UNKNOWN_TO_VALGRIND = {"eBPF command 24", "eBPF command 28", "eBPF command 32"}
FEATURES = ("exec_events", "runqlat")


@pytest.fixture(scope="module")
def binary() -> Path:
    run_make("dynamic")
    return ROOT / "build" / "loader-dynamic" / "ebpf-loader"


@pytest.fixture
def valgrind(tmp_path: Path) -> tuple[str, ...]:
    """The command before the loader's; what it finds is in valgrind.log."""
    path = shutil.which("valgrind")
    assert path, "no valgrind here: tools/setup.sh installs it"
    known = f"--suppressions={Path(__file__).parent / 'valgrind.supp'}"
    leaks = ("--leak-check=full", "--show-leak-kinds=definite,indirect", "--errors-for-leak-kinds=definite,indirect")
    return (path, known, f"--error-exitcode={FOUND}", *leaks, f"--log-file={tmp_path}/valgrind.log")


@pytest.fixture
def service(
    binary: Path, tmp_path: Path, trust: Trust, feature_objects: Path, valgrind: tuple[str, ...]
) -> Iterator[Service]:
    """A service under valgrind; not started."""
    features = {name: feature_of(feature_objects, name) for name in FEATURES}
    made = make_service(binary, tmp_path, trust, features, prefix=valgrind)
    made.want(*FEATURES)
    yield made
    if made.process is not None:
        made.stop(signal.SIGKILL)


def clean(tmp_path: Path, code: int) -> None:
    """Nothing was found, and something was looked at."""
    log = (tmp_path / "valgrind.log").read_text()
    assert code != FOUND and "ERROR SUMMARY: 0 errors" in log, log[-6000:]
    unknown = set(re.findall(r"unhandled (.*)", log))
    assert unknown <= UNKNOWN_TO_VALGRIND, f"valgrind does not know a call of ours and looks at none of it: {unknown}"


def run(service: Service, *arguments: Any, code: int = 0) -> None:
    command = [*service.prefix, str(service.binary), *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    clean(service.folder, done.returncode)
    assert done.returncode == code, done.stderr[-3000:]


def test_verify_is_clean(service: Service) -> None:
    run(service, "verify", service.bundle.root, *service.trust.arguments)


def test_a_refusal_is_clean_too(service: Service) -> None:
    with service.bundle.manifest_path.open("ab") as file:
        file.write(b" ")
    run(service, "verify", service.bundle.root, *service.trust.arguments, code=3)


@pytest.mark.parametrize("feature", FEATURES)
def test_inspect_is_clean(service: Service, feature_objects: Path, feature: str) -> None:
    run(service, "inspect", "--all-structs", feature_objects / feature / "full.bpf.o")


def test_check_with_attach_is_clean(service: Service) -> None:
    run(service, "check", "--attach", service.bundle.root, *service.trust.arguments)


def test_a_run_with_events_orders_and_wrong_wishes_is_clean(service: Service) -> None:
    service.start()
    wait_for(lambda: (service.status() or {}).get("compatibility"), "it settles", 120)
    for _ in range(5):
        subprocess.run(["true"], check=True)
    service.fresh_status()
    order = service.order("feature.exec_events")
    service.wait_state("exec_events", "killed", 60)
    order.unlink()
    service.write_desired(b'{"schema": ')
    wait_for(lambda: service.now()["desired_error"], "the error is seen", 60)
    service.want("runqlat")
    service.wait_state("exec_events", "off", 60)
    assert service.process is not None
    service.process.send_signal(signal.SIGTERM)
    clean(service.folder, service.process.wait(timeout=120))
    assert service.process.returncode == 0, service.journal()[-3000:]


def test_valgrind_sees_a_mistake(tmp_path: Path, valgrind: tuple[str, ...]) -> None:
    """Else a clean run would mean nothing."""
    source = tmp_path / "leak.c"
    source.write_text("#include <stdlib.h>\nint main(void) { return malloc(7) == 0; }\n")
    subprocess.run(["gcc", "-O0", str(source), "-o", str(tmp_path / "leak")], check=True)
    done = subprocess.run([*valgrind, str(tmp_path / "leak")], check=False, capture_output=True, timeout=60)
    log = (tmp_path / "valgrind.log").read_text()
    assert done.returncode == FOUND and re.search(r"definitely lost: 7 bytes", log), log
