# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that can delay a kill, in one fleet and one order: each other host is off and confirmed in its time."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host import hostile
from tests.host.hostile import Other
from tests.integration.test_fan_out import play
from tests.support import sshhosts
from tests.support.sysfleet import Release, SysFleet
from tests.support.syshost import SysHost

HANGING = {"silent": 10, "in_login": 10, "asleep": 10, "lost": 10}
GOOD = 10
# Of one host, from its login to its answer.
ITS_TURN = 10.0


@pytest.fixture(scope="module")
def hosts(can_boot: None) -> Iterator[list[SysHost]]:
    """A frozen loader beside a descriptor bomb, a list that is a FIFO, and a service that does not end."""
    with SysHost.boot() as frozen, SysHost.boot() as fifo, SysHost.boot() as deaf:
        yield [frozen, fifo, deaf]


@pytest.fixture(scope="module")
def release(hosts: list[SysHost], tmp_path_factory: pytest.TempPathFactory) -> Release:
    fleet = SysFleet(tmp_path_factory.mktemp("fleet"), hosts)
    made = fleet.release("1.0.0", 1)
    fleet.deploy(made)
    return made


def inventory(folder: Path, hosts: list[SysHost], ssh: sshhosts.Hosts) -> Path:
    """The hanging hosts first, so that whoever serves hosts in order comes to the good ones last."""
    document = json.loads(ssh.inventory(ebpf_fleet_connect_timeout=8).read_text())
    common = document["all"].pop("vars")
    groups = {"plain": {"hosts": document["all"]["hosts"], "vars": common},
              "systemd": {"hosts": {host.name: host.ssh for host in hosts}}}  # fmt: skip
    path = folder / "fleet.json"
    path.write_text(json.dumps({"all": {"children": groups}}))
    return path


@pytest.mark.slow
def test_each_other_host_is_off_and_confirmed_in_its_time_and_who_hangs_is_named(
    hosts: list[SysHost], release: Release, evil: Path, tmp_path: Path
) -> None:
    frozen, fifo, deaf = hosts
    kinds = [kind for kind, number in HANGING.items() for _ in range(number)]
    try:
        hostile.install(fifo, evil, "list_fifo")
        hostile.install(deaf, evil, "extend")
        frozen.must(f"kill -STOP $(systemctl show -P MainPID {hostile.UNIT})")
        with contextlib.ExitStack() as stack:
            bomb = stack.enter_context(Other(frozen, evil, "bomb", "150", "20000"))
            ssh = stack.enter_context(sshhosts.hosts(tmp_path, *kinds, *["good"] * GOOD, first=400))
            assert int(bomb.line().split()[0]) >= 1000
            options = ("--forks", "20", "-e", "scope=global", "-e", "ebpf_fleet_report=record.json",
                       "-e", "ebpf_fleet_kill_timeout=15")  # fmt: skip
            ran = play(tmp_path, "ebpf.fleet.rollback", inventory(tmp_path, hosts, ssh), *options, timeout=150)
            assert len(bomb.family()) >= 150, "root killed processes of another user"
            expected = sorted([*ssh.of_kind("good"), *(host.name for host in hosts)])
            hanging = ssh.of_kind(*HANGING)
        record = json.loads((tmp_path / "record.json").read_text())
        assert (record["confirmed"], record["missing"]) == (expected, hanging), ran.text
        assert hostile.names() == [], "programs of ours are in the kernel"
        slow = {name: record["seconds"][name] for name in expected if record["seconds"][name] > ITS_TURN}
        assert slow == {}, "not off within its time"
        told = [name for name in hanging if "did not answer" in record["hosts"][name]["detail"]]
        silent = [name for name in hanging if "banner exchange" in record["hosts"][name]["detail"]]
        assert sorted([*told, *silent]) == hanging, ran.text
        assert ran.rc == 2
        for host in (fifo, deaf):
            assert hostile.hostile_processes(host) == []
    finally:
        for host in hosts:
            hostile.remove(host)
