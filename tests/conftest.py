# SPDX-License-Identifier: GPL-3.0-or-later
"""What `make test` runs and what it may leave out.

Of a table of cases marked `sample(n)`: the first, the last, and those evenly between; of one in tests/integration that
is not marked the first, as each case there is a run of Ansible or of a whole script: `make test-all` has them all. A
skip for what setup provides, or for a reason that is not in tests/holes.yml, is a failure. What may run side by side:
support/groups.py.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import groups, holes
from tests.support.sampling import evenly


@pytest.fixture(scope="session", autouse=True)
def own_ledger(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Rollouts of tests write their ledger, and take their lock, in a folder of this run, not in the user's."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(autouse=True)
def no_standing_order(own_ledger: None) -> Iterator[None]:
    """An order that a test leaves on the controller does not stand for the hosts of the next one."""
    yield
    shutil.rmtree(Path(os.environ["XDG_STATE_HOME"]) / "ebpf-fleet/orders", ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a failure of a skip that a run which set the machine up may not have."""
    report = yield
    if report.skipped and holes.is_set_up() and isinstance(report.longrepr, tuple):
        fault = holes.fault(str(report.longrepr[2]).removeprefix("Skipped: "))
        if fault:
            report.outcome, report.longrepr = "failed", f"{item.nodeid}: {fault}"
    return report


@pytest.fixture(scope="session", autouse=True)
def open_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let other users pass to the tests' folders: loaders give up root, and pytest keeps what is above to itself."""
    for folder in [(base := tmp_path_factory.getbasetemp()), *base.parents]:
        if folder.name.startswith(("pytest-", "popen-")) and folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o011)


def cases_of(item: pytest.Item) -> int:
    """How many cases of this test's table `make test` takes, 0 for all."""
    marker = item.get_closest_marker("sample")
    if marker is not None:
        return int(marker.args[0])
    return 1 if item.nodeid.startswith("tests/integration/") else 0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what `make test-all` alone runs; the closing line counts it as deselected."""
    if os.environ.get("EBPF_FLEET_QUICK") != "1":
        return
    tables: dict[str, list[pytest.Item]] = {}
    for item in items:
        if cases_of(item) and not item.get_closest_marker("slow"):
            tables.setdefault(item.nodeid.partition("[")[0], []).append(item)
    left_out = set()
    for cases in tables.values():
        left_out.update(set(cases) - set(evenly(cases, cases_of(cases[0]))))
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker a group after the other."""
    return groups.scheduler(config, log)
