# SPDX-License-Identifier: GPL-3.0-or-later
"""pytest's plugin beside `sitecustomize`: whose call it is, and how each test ended after how long."""

from __future__ import annotations

import json
import os
from typing import Any, Generator, Iterator

import pytest
import sitecustomize

ENDS: dict[str, tuple[str, float]] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: Any, nextitem: Any) -> Iterator[None]:
    sitecustomize.recorder.test = item.nodeid
    result = yield
    sitecustomize.recorder.test = ""
    return result  # noqa: B901


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any, request: Any) -> Generator[None, object, object]:
    """What is set up once for several tests is of all in the file, not of the first alone."""
    if fixturedef.scope == "function":
        return (yield)  # noqa: B901
    test, sitecustomize.recorder.test = sitecustomize.recorder.test, ""
    said = os.environ.pop("PYTEST_CURRENT_TEST", None)
    try:
        return (yield)  # noqa: B901
    finally:
        sitecustomize.recorder.test = test
        if said is not None:
            os.environ["PYTEST_CURRENT_TEST"] = said


def pytest_runtest_logreport(report: Any) -> None:
    outcome, spent = ENDS.get(report.nodeid, ("passed", 0.0))
    ENDS[report.nodeid] = (report.outcome if outcome == "passed" else outcome, spent + report.duration)


def pytest_sessionfinish() -> None:
    with open(os.path.join(os.environ["EBPF_FLEET_SEEN"], "ends.json"), "w", encoding="utf-8") as file:
        json.dump(ENDS, file)
