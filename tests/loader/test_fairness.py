# SPDX-License-Identifier: GPL-3.0-or-later
"""A user who floods an events signal takes nothing from the others: who is loudest is thinned first."""

from __future__ import annotations

import functools
import json
import os
import signal
import tempfile
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.load.execs import Execs, copy_as
from tests.loader.bundles import Trust
from tests.loader.service import ROOMY_POLICY, Service, feature_of, make_service, total, wait_for

NAME = "exec_events"
FLOODER, MARKED = 60001, 60002
SECONDS, MARKS, MISSING = 10, 50, 1
PROCESSES = 4
CPU_EXCEEDED = 4  # millicores: less than a flood costs here


@pytest.fixture
def programs() -> Iterator[tuple[Path, Path]]:
    """What the flooder and the marked user execute; in a folder that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="ef-flood-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield copy_as(folder, "ef-flood"), copy_as(folder, "ef-marked")


@pytest.fixture
def service(
    loader: Path, feature_objects: Path, tmp_path: Path, trust: Trust, request: pytest.FixtureRequest
) -> Iterator[Service]:
    """exec_events with its own contract's budgets and the host's defaults."""
    variants = getattr(request, "param", None)
    made = make_service(loader, tmp_path, trust, {NAME: feature_of(feature_objects, NAME, variants)}, budgets=True)
    made.want(NAME)
    made.start_settled()
    yield made
    if made.alive():
        made.stop(signal.SIGKILL)


def recorded(service: Service, comm: str) -> int:
    return sum(each["comm"] == comm for each in service.events())


def audit(service: Service) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (service.log / "audit.jsonl").read_text().splitlines()]


def at_rest(service: Service) -> dict[str, Any]:
    """The feature's status when every event has its outcome: after the detach."""
    service.order("global")
    found = service.wait_state(NAME, "killed")
    counters = found["counters"]
    assert counters["in_flight"] == 0 and total(counters) == counters["produced"]
    return found


def budgets_held(status: dict[str, Any]) -> None:
    """Nothing of the feature or the host is over its limit, and no budget took a step."""
    assert status["features"][NAME]["degraded"] is None
    budgets = [status["budget"]["host"], status["budget"]["features"][NAME]]
    over = [
        (name, each) for of in budgets for name, each in of.items()
        if each["measured"] is not None and each["limit"] is not None and each["measured"] > each["limit"]
    ]  # fmt: skip
    assert not over, over


class Flood:
    """A flood and fifty marked executions in it, and the status while it goes on and after."""

    def __init__(self, service: Service, flooders: list[Execs], marked: Path, uid: int = MARKED, **options: Any):
        self.service, self.statuses = service, list[dict[str, Any]]()
        marks = Execs(marked, [uid], count=MARKS, interval=(SECONDS - 1) / MARKS, **options)
        while marks.process.poll() is None:
            self.statuses.append(service.fresh_status())
        assert marks.wait() == MARKS
        self.flooded = sum(each.wait() for each in flooders)
        self.feature = service.fresh_status()["features"][NAME]
        self.counters = at_rest(service)["counters"]
        self.marked = recorded(service, "ef-marked")

    def assert_fair(self) -> None:
        """At least 49 of 50 are there, every execution has one outcome, and the budgets hold all the time."""
        assert self.marked >= MARKS - MISSING, (self.marked, self.flooded, self.counters, self.feature["fairness"])
        assert self.counters["produced"] >= self.flooded + MARKS and self.counters["dropped"] == 0
        assert self.counters["sampled_out"] == self.service.feature(NAME)["fairness"]["thinned"] > 0
        assert self.counters["delivered"] == len(self.service.events())
        for status in self.statuses:
            budgets_held(status)


@pytest.mark.parametrize(
    "service",
    [("full",), pytest.param(("reduced",), marks=pytest.mark.slow), pytest.param(("perf",), marks=pytest.mark.slow)],
    indirect=True,
)
def test_a_flood_by_one_user_hides_nothing_of_another(service: Service, programs: tuple[Path, Path]) -> None:
    flood, marked = programs
    found = Flood(service, [Execs(flood, [FLOODER], SECONDS, PROCESSES)], marked)
    found.assert_fair()
    fairness = found.feature["fairness"]
    assert fairness["active"] and fairness["by"] == ["uid", "cgroup"] and fairness["rate_per_second"] == 2000
    top = fairness["top"][0]
    assert top["uid"] == FLOODER and top["thinned"] > 0.9 * fairness["thinned"], fairness
    assert top["cgroup_id"] == own_cgroup_id()
    text = (service.state / "metrics.prom").read_text()
    thinned = found.counters["sampled_out"]
    assert f'ebpf_fleet_events_thinned_total{{feature="{NAME}"}} {thinned}\n' in text
    record = [each for each in audit(service) if each["reason_code"] == "EF_FAIRNESS_THINNED"]
    assert len(record) == 1 and record[0]["event"] == "degrade" and record[0]["who"]["source"] == "fairness"
    assert f"the loudest is uid {FLOODER} in control group" in record[0]["reason"]
    assert f"feature {NAME}: fairness begins: more than the 2000 events a second" in service.journal()


@pytest.mark.slow
def test_root_is_a_user_as_any_other(service: Service, programs: tuple[Path, Path]) -> None:
    """The marked user is root, whose other executions on this machine are in the same account."""
    flood, marked = programs
    Flood(service, [Execs(flood, [FLOODER], SECONDS, PROCESSES)], marked, uid=0).assert_fair()


@pytest.mark.slow
def test_two_flooders_share_what_one_had(service: Service, programs: tuple[Path, Path]) -> None:
    flood, marked = programs
    flooders = [Execs(flood, [uid], SECONDS, 2) for uid in (FLOODER, FLOODER + 10)]
    found = Flood(service, flooders, marked)
    found.assert_fair()
    passed = [each["produced"] - each["thinned"] for each in found.feature["fairness"]["top"][:2]]
    assert max(passed) < 2 * min(passed), found.feature["fairness"]


@pytest.mark.slow
def test_a_flooder_with_fifty_users_gains_nothing(service: Service, programs: tuple[Path, Path]) -> None:
    flood, marked = programs
    uids = list(range(FLOODER + 100, FLOODER + 150))
    found = Flood(service, [Execs(flood, uids, SECONDS, PROCESSES)], marked)
    found.assert_fair()
    fairness = found.feature["fairness"]
    assert len(fairness["top"]) == 5 and fairness["sources"] > 50 and fairness["others_thinned"] > 0
    text = (service.state / "metrics.prom").read_text()
    assert text.count("ebpf_fleet_source_thinned_events{") <= 6


def own_cgroup_id() -> int:
    """The kernel's number of this process' control group of version 2; 1 where there is no folder to ask."""
    path = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))[3:]
    root = cgroup_root()
    return (root / path.lstrip("/")).stat().st_ino if root else 1


def cgroup_root() -> Path | None:
    """Where the control groups of version 2 are mounted."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return next((Path(each[1]) for each in mounts if each[2] == "cgroup2"), None)


def is_empty(group: Path) -> bool:
    return not (group / "cgroup.procs").read_text()


@pytest.fixture
def groups() -> Iterator[Path]:
    """A folder of control groups, as a service or a user's slice has them."""
    root = cgroup_root()
    if root is None:
        pytest.skip("control groups of version 2 are not mounted here")
    top = root / f"ef-test-{os.getpid()}"
    top.mkdir()
    yield top
    for folder in sorted(top.rglob("*/"), key=lambda each: -len(each.parts)):
        if folder.is_dir():
            wait_for(functools.partial(is_empty, folder), "the group is empty")
            folder.rmdir()
    top.rmdir()


@pytest.mark.slow
def test_a_flooder_with_many_control_groups_gains_nothing(
    service: Service, programs: tuple[Path, Path], groups: Path
) -> None:
    """Forty groups of one user below the group that was given to him, and the marked user's beside it."""
    flood, marked = programs
    mine = [groups / "user-flooder" / f"group-{number}" for number in range(40)]
    for each in [*mine, groups / "user-marked"]:
        each.mkdir(parents=True)
    flooders = [Execs(flood, [FLOODER], SECONDS, interval=0.01, cgroup=each) for each in mine]
    found = Flood(service, flooders, marked, cgroup=groups / "user-marked")
    found.assert_fair()
    numbers = {each.stat().st_ino for each in mine}
    assert {each["cgroup_id"] for each in found.feature["fairness"]["top"]} <= numbers


@pytest.mark.slow
def test_many_users_and_groups_do_not_reach_another_domain(
    service: Service, programs: tuple[Path, Path], groups: Path
) -> None:
    """Two thousand users, more than the table holds, in one domain; the marked user has another."""
    flood, marked = programs
    for name in ("user-flooder", "user-marked"):
        (groups / name).mkdir()
    uids = list(range(FLOODER + 1000, FLOODER + 3000))
    flooder = Execs(flood, uids, SECONDS, PROCESSES, cgroup=groups / "user-flooder")
    Flood(service, [flooder], marked, cgroup=groups / "user-marked").assert_fair()


@pytest.mark.slow
def test_the_same_user_in_another_group_is_another_source(
    service: Service, programs: tuple[Path, Path], groups: Path
) -> None:
    """Root in two containers."""
    flood, marked = programs
    for name in ("one", "two"):
        (groups / name).mkdir()
    flooder = Execs(flood, [0], SECONDS, PROCESSES, cgroup=groups / "one")
    Flood(service, [flooder], marked, uid=0, cgroup=groups / "two").assert_fair()


@pytest.mark.slow
def test_a_user_of_a_namespace_is_its_owner(service: Service, programs: tuple[Path, Path]) -> None:
    """A thousand users of one user namespace, as /etc/subuid gives them to a user, are that user."""
    flood, marked = programs
    flooder = Execs(flood, list(range(1, 1000)), SECONDS, PROCESSES, owner=FLOODER, subuids=200000)
    found = Flood(service, [flooder], marked)
    found.assert_fair()
    assert [each["uid"] for each in found.feature["fairness"]["top"]] == [FLOODER]


def test_what_is_allowed_is_not_thinned(
    loader: Path, feature_objects: Path, tmp_path: Path, trust: Trust, programs: tuple[Path, Path]
) -> None:
    """With room for it, a flood is recorded whole."""
    flood, _marked = programs
    roomy = make_service(loader, tmp_path, trust, {NAME: feature_of(feature_objects, NAME)})
    roomy.allow({**ROOMY_POLICY, "sink": {"kind": "jsonl", "file_bytes": 1 << 28}})
    roomy.want(NAME)
    roomy.start_settled()
    flooded = Execs(flood, [FLOODER], 3, PROCESSES).wait()
    counters = at_rest(roomy)["counters"]
    found = recorded(roomy, "ef-flood")
    roomy.stop(signal.SIGKILL)
    assert (found - 1, counters["sampled_out"]) == (flooded, 0), "and the flooder itself, when it began"


@pytest.mark.slow
def test_the_end_of_thinning_is_told_and_what_was_thinned_stays_counted(
    service: Service, programs: tuple[Path, Path]
) -> None:
    """Detached and attached again, the total goes on."""
    flood, _marked = programs
    Execs(flood, [FLOODER], 3, PROCESSES).wait()
    thinned = at_rest(service)["fairness"]["thinned"]
    (service.run / "kill.d" / "global").unlink()
    service.wait_state(NAME, "attached")
    assert service.fresh_status()["features"][NAME]["fairness"]["thinned"] == thinned > 0
    Execs(flood, [FLOODER], 3, PROCESSES).wait()
    found = at_rest(service)
    assert found["fairness"]["thinned"] == found["counters"]["sampled_out"] > thinned


@pytest.mark.slow
def test_a_budget_thins_the_loudest_first(
    loader: Path, feature_objects: Path, tmp_path: Path, trust: Trust, programs: tuple[Path, Path]
) -> None:
    """The flood exceeds a CPU budget of this host: less of it passes, 100 a second at least, and all marks do."""
    flood, marked = programs
    tight = make_service(loader, tmp_path, trust, {NAME: feature_of(feature_objects, NAME)}, budgets=True)
    tight.allow({"schema": "ebpf.fleet/policy/v1", "features": {NAME: {"cpu_millicores": CPU_EXCEEDED}}})
    tight.want(NAME)
    tight.start_settled()
    flooder = Execs(flood, [FLOODER], SECONDS, PROCESSES)
    wait_for(lambda: tight.feature(NAME)["degraded"], "the budget acts")
    marks = Execs(marked, [MARKED], count=MARKS, interval=(SECONDS - 5) / MARKS)
    assert marks.wait() == MARKS
    feature = tight.fresh_status()["features"][NAME]
    flooder.wait()
    counters = at_rest(tight)["counters"]
    found = recorded(tight, "ef-marked")
    tight.stop(signal.SIGKILL)
    assert feature["degraded"]["reason_code"] == "EF_BUDGET_CPU" and feature["sample_every"] == 1, feature
    assert feature["fairness"]["rate_per_second"] in range(100, 501), feature["fairness"]
    assert found >= MARKS - MISSING, (found, counters, feature)
