# SPDX-License-Identifier: GPL-3.0-or-later
"""The kill switch, by script and by module, against the real loader on this machine's kernel."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfsys
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import answer as kill_answer
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import script as killscript

from tests.integration.killplace import HOSTILE_FILES
from tests.integration.runner import run_one
from tests.integration.sandbox import Sandbox, can_sandbox
from tests.loader.bundles import Trust
from tests.loader.service import feature_of

pytestmark = pytest.mark.skipif(
    not can_sandbox(), reason="loading programs and a process namespace of its own need root"
)


@pytest.fixture
def host(tmp_path: Path, loader: Path, feature_objects: Path, trust: Trust) -> Iterator[Sandbox]:
    """A host with both features attached."""
    features = {name: feature_of(feature_objects, name) for name in ("runqlat", "exec_events")}
    sandbox = Sandbox(loader, tmp_path / "host", trust, features)
    sandbox.start("runqlat", "exec_events")
    yield sandbox
    sandbox.stop()


def listed(host: Sandbox) -> dict[int, str]:
    """{program id: feature} by the loader's own list."""
    lines = (host.service.state / "programs").read_text().split("\n")
    return {int(line.split()[0]): line.split()[2] for line in lines if line}


def in_kernel(ids: set[int]) -> set[int]:
    """Which of these programs the kernel still has, by bpftool."""
    done = subprocess.run(["bpftool", "prog", "show"], capture_output=True, text=True, check=True)
    return {number for number in ids if f"\n{number}: " in "\n" + done.stdout}


def gone(host: Sandbox, ids: set[int]) -> None:
    """The kernel frees what is detached a moment later, when no CPU can be in it any more."""
    host.wait(lambda: not in_kernel(ids), f"programs {sorted(ids)} gone from the kernel", 5)


def skip_beside_other_loaders(ids: set[int]) -> None:
    """Global means every program of ours in the kernel, which this machine may share."""
    foreign = {one.id for one in bpfsys.own_programs()} - ids
    if foreign:
        pytest.skip(f"another loader runs on this machine (programs {sorted(foreign)}), and global means all")


class TestScript:
    @pytest.mark.parametrize("shell", ["dash", "bash"])
    def test_global_is_off_by_the_kernels_own_word(self, host: Sandbox, shell: str) -> None:
        ids = set(listed(host))
        assert in_kernel(ids) == ids
        # A grace that a loader on a busy machine has time to obey in.
        answer = host.switch("global", shell=shell, grace_seconds=8)
        gone(host, ids)
        assert (answer["ok"], answer["left"], answer["escalated"], answer["persisted"]) == (True, 0, False, True)

    def test_one_feature_goes_and_the_other_stays(self, host: Sandbox) -> None:
        before = listed(host)
        skip_beside_other_loaders(set(before))
        answer = host.switch("feature=exec_events")
        assert (answer["ok"], answer["left"]) == (True, 0), answer
        own = {number for number, feature in before.items() if feature == "exec_events"}
        # At once: the kernel was asked, so confirmed means freed.
        assert in_kernel(set(before)) == set(before) - own
        assert own

    def test_confirmed_is_gone_at_once(self, host: Sandbox) -> None:
        ids = set(listed(host))
        skip_beside_other_loaders(ids)
        answer = host.switch("global", grace_seconds=8)
        assert in_kernel(ids) == set()
        if not answer["ok"]:
            skip_beside_other_loaders(ids)
        assert (answer["ok"], answer["left"], answer["detail"]) == (True, 0, "off; nothing of it is left")

    def test_family_of_this_host(self, host: Sandbox) -> None:
        ids = set(listed(host))
        family = ".".join(os.uname().release.split(".")[:2])
        assert host.switch(f"kernel_family={family}")["ok"] is True
        gone(host, ids)

    def test_family_of_another_host_changes_nothing(self, host: Sandbox) -> None:
        ids = set(listed(host))
        answer = host.switch("kernel_family=2.6")
        assert (answer["ok"], answer["left"]) == (True, None)
        assert in_kernel(ids) == ids

    def test_release_brings_back_what_is_wanted(self, host: Sandbox) -> None:
        host.switch("global")
        assert host.switch("global", state="released")["ok"] is True
        host.wait(lambda: set(host.attached()) == {"runqlat", "exec_events"}, "attached again")

    @pytest.mark.sample(1)
    @pytest.mark.parametrize("scope", ["global", "feature=exec_events"])
    def test_a_proof_that_takes_longer_than_the_grace_is_no_disobedience(
        self, host: Sandbox, tmp_path: Path, scope: str
    ) -> None:
        """On a slow host the kernel's symbols alone take seconds, and the loader has long let go."""
        tools = tmp_path / "tools"
        tools.mkdir()
        slow = tools / "grep"
        slow.write_text('#!/bin/sh\ncase $* in *kallsyms*) sleep 1.2 ;; esac\nexec /bin/grep "$@"\n')
        slow.chmod(0o755)
        script = killscript.render([scope], root=str(host.root), grace_seconds=2, deadline_seconds=15)
        before = host.status()["pid"]
        done = host.inside("sh", "-c", f"PATH={tools}:$PATH; export PATH\n{script}")
        answer = kill_answer.parse_answer({"rc": done.returncode, "stdout": done.stdout})
        if answer["witness"] != "kallsyms":
            pytest.skip(f"this kernel's symbols do not tell its programs: the witness is {answer['witness']}")
        assert answer["host_ms"] > 2000, "the proof was not slow"
        assert (answer["ok"], answer["escalated"]) == (True, False), answer
        assert host.status()["pid"] == before

    def test_a_stopped_loader_is_killed(self, host: Sandbox) -> None:
        ids = set(listed(host))
        assert host.inside("kill", "-STOP", str(host.status()["pid"])).returncode == 0
        answer = host.switch("global", grace_seconds=1)
        assert (answer["ok"], answer["escalated"], answer["left"]) == (True, True, 0), answer
        assert "did not obey" in answer["detail"]
        gone(host, ids)

    def test_a_stopped_loader_is_killed_for_one_feature_too(self, host: Sandbox) -> None:
        assert host.inside("kill", "-STOP", str(host.status()["pid"])).returncode == 0
        answer = host.switch("feature=runqlat", grace_seconds=0)
        assert (answer["ok"], answer["escalated"]) == (True, True), answer

    def test_a_query_counts_what_runs(self, host: Sandbox) -> None:
        answer = host.switch("global", state="query")
        assert (answer["ok"], answer["left"], answer["changed"]) == (True, len(listed(host)), False)

    def test_a_killed_loader_leaves_a_stale_list_that_fools_nobody(self, host: Sandbox) -> None:
        ids = set(listed(host))
        assert host.inside("kill", "-KILL", str(host.status()["pid"])).returncode == 0
        host.wait(lambda: not in_kernel(ids), "programs gone")
        assert set(listed(host)) == ids
        assert host.switch("global")["ok"] is True

    @pytest.mark.slow
    def test_no_place_for_an_order_stops_the_loader_and_says_that_nothing_holds(self, host: Sandbox) -> None:
        ids = set(listed(host))
        for folder in ("etc", "run"):
            place = str(host.root / folder)
            assert host.inside("mount", "--bind", place, place).returncode == 0
            # Busy while the loader writes its status or its page.
            close = ("mount", "-o", "remount,ro,bind", place)
            host.wait(lambda close=close: host.inside(*close).returncode == 0, "read-only")
        answer = host.switch("global")
        assert (answer["ok"], answer["escalated"], answer["left"]) == (False, True, 0), answer
        assert "nothing holds it" in answer["detail"]
        gone(host, ids)


class TestModule:
    def switch(self, host: Sandbox, folder: Path, *options: str, **more: Any) -> dict[str, Any]:
        places = {"etc_dir": host.service.etc, "run_dir": host.service.run, "state_dir": host.service.state}
        places["lib_dir"] = host.root / "var/lib/ebpf-fleet"
        given = {name: str(path) for name, path in places.items()}
        return run_one(folder, "kill_switch", *options, **{**given, **more})

    def test_a_feature_is_off_and_a_second_run_changes_nothing(self, host: Sandbox, tmp_path: Path) -> None:
        before = listed(host)
        result = self.switch(host, tmp_path, scopes=["feature=runqlat"])
        assert (result["failed"], result["changed"], result["programs_left"]) == (False, True, [])
        assert result["time_to_off_ms"] >= 0
        own = {number for number, feature in before.items() if feature == "runqlat"}
        assert in_kernel(set(before)) == set(before) - own
        again = self.switch(host, tmp_path, scopes=["feature=runqlat"])
        assert (again["changed"], again["programs_left"]) == (False, [])

    def test_global(self, host: Sandbox, tmp_path: Path) -> None:
        ids = set(listed(host))
        skip_beside_other_loaders(ids)
        result = self.switch(host, tmp_path, scopes=["global"])
        assert in_kernel(ids) == set()
        left = {one["id"] for one in result["programs_left"]}
        if left:
            pytest.skip(f"another loader was started on this machine meanwhile (programs {sorted(left)})")
        assert (result["failed"], result["orders"]) == (False, {"etc": ["global"], "run": ["global"]})

    @pytest.mark.sample(1)
    @pytest.mark.parametrize("hostile", HOSTILE_FILES)
    def test_a_list_that_is_a_trap_holds_nothing_up(
        self, host: Sandbox, tmp_path: Path, hostile: Callable[[Path], None]
    ) -> None:
        ids = set(listed(host))
        skip_beside_other_loaders(ids)
        # The loader writes its list again on its own; what is frozen does not.
        assert host.inside("kill", "-STOP", str(host.status()["pid"])).returncode == 0
        (host.service.state / "programs").unlink()
        hostile(host.service.state / "programs")
        start = time.monotonic()
        result = self.switch(host, tmp_path, scopes=["feature=runqlat"], wait=0.5)
        assert result["failed"] is True
        assert "still in the kernel" in result["msg"]
        assert (host.service.run / "kill.d/feature.runqlat").exists()
        assert time.monotonic() - start < 30

    def test_check_mode_shows_and_changes_nothing(self, host: Sandbox, tmp_path: Path) -> None:
        ids = set(listed(host))
        result = self.switch(host, tmp_path, "--check", "--diff", scopes=["feature=runqlat"])
        assert (result["changed"], result["programs_left"], result["time_to_off_ms"]) == (True, None, None)
        assert "feature.runqlat" in result["_said"]
        assert not list(host.root.glob("*/ebpf-fleet/kill.d/*"))
        assert in_kernel(ids) == ids

    @pytest.mark.slow
    def test_release(self, host: Sandbox, tmp_path: Path) -> None:
        self.switch(host, tmp_path, scopes=["feature=runqlat"])
        result = self.switch(host, tmp_path, scopes=["feature=runqlat"], state="released")
        assert (result["changed"], result["orders"]) == (True, {"etc": [], "run": []})
        host.wait(lambda: "runqlat" in host.attached(), "attached again")
        assert self.switch(host, tmp_path, scopes=["feature=runqlat"], state="released")["changed"] is False

    def test_query(self, host: Sandbox, tmp_path: Path) -> None:
        result = self.switch(host, tmp_path, scopes=["feature=runqlat"], state="query")
        assert result["changed"] is False
        own = {number for number, feature in listed(host).items() if feature == "runqlat"}
        assert {one["id"] for one in result["programs_left"]} == own

    @pytest.mark.slow
    def test_a_loader_that_does_not_obey_fails_the_task(self, host: Sandbox, tmp_path: Path) -> None:
        assert host.inside("kill", "-STOP", str(host.status()["pid"])).returncode == 0
        result = self.switch(host, tmp_path, scopes=["feature=runqlat"], wait=0.5)
        assert result["failed"] is True
        assert "still in the kernel after 0.5 s" in result["msg"]
        assert "rollback.yml" in result["msg"] and result["reason_code"] == "EF_KILL_NO_EFFECT"
        assert result["time_to_off_ms"] is None

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"scopes": ["feture=runqlat"]}, "scope 'feture=runqlat' is not one: did you mean feature=runqlat?"),
            ({"scopes": []}, "give a list of at least one"),
            ({"scopes": ["global"], "wait": -1}, "wait: -1.0 is out of range"),
        ],
    )
    @pytest.mark.sample(1)
    def test_bad_input_changes_nothing(self, tmp_path: Path, more: dict[str, Any], message: str) -> None:
        places = {name: str(tmp_path / name) for name in ("etc_dir", "run_dir", "state_dir")}
        result = run_one(tmp_path, "kill_switch", **places, **more)
        assert result["failed"] is True
        assert message in result["msg"] and result["reason_code"] == "EF_ARGUMENT"
        assert not (tmp_path / "run_dir").exists()

    @pytest.mark.slow
    def test_an_etc_that_refuses_is_said_after_the_kill(self, host: Sandbox, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        result = self.switch(host, tmp_path, scopes=["feature=runqlat"], etc_dir=str(tmp_path / "file"))
        assert result["failed"] is True
        assert "not as it should be" in result["msg"] and result["reason_code"] == "EF_ORDER_NOT_WRITTEN"
        assert result["programs_left"] == []
