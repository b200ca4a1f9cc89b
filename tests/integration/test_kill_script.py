# SPDX-License-Identifier: GPL-3.0-or-later
"""The kill script in a process namespace of its own, under each sh; it asks this machine's kernel what is loaded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfsys
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import answer as kill_answer
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import script as killscript

from tests.unit.test_kill import SHELLS


def can_unshare() -> bool:
    """Is a process namespace of our own to be had?"""
    probe = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    return os.geteuid() == 0 and subprocess.run(probe, capture_output=True, check=False).returncode == 0


needs_namespace = pytest.mark.skipif(
    not can_unshare(),
    reason="the script would see, and kill, other loaders of this machine; a process namespace needs root",
)


@needs_namespace
@pytest.mark.sample(1)
@pytest.mark.parametrize("shell", SHELLS)
class TestScript:
    """Runs beside no loader: what the script does with files, families and witnesses."""

    def run(self, shell: str, root: Path, scopes: list[str], before: str = "", **more: Any) -> dict[str, Any]:
        if shutil.which(SHELLS[shell][0]) is None:
            pytest.skip(f"{shell} is not installed here")
        script = killscript.render(scopes, root=str(root), **more)
        inner = f'{before}\nexec "$@"'
        command = ["unshare", "--pid", "--fork", "--mount-proc", "--mount", "sh", "-c", inner, "sh"]
        others = bpfsys.own_programs()
        done = subprocess.run(
            [*command, *SHELLS[shell], "-c", script], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.stderr == ""
        assert done.stdout.count("\n") == 2
        json.loads(done.stdout[len(killscript.MARK) :])
        answer = kill_answer.parse_answer({"rc": done.returncode, "stdout": done.stdout})
        assert (done.returncode == 0) is answer["ok"]
        if answer["left"] and (others or bpfsys.own_programs()):
            pytest.skip("another loader runs on this machine's kernel, and global means all")
        return answer

    def orders(self, root: Path) -> list[str]:
        return sorted(str(path.relative_to(root)) for path in root.glob("*/ebpf-fleet/kill.d/*"))

    def test_orders_are_placed_twice_and_once_is_no_change(self, shell: str, tmp_path: Path) -> None:
        answer = self.run(shell, tmp_path, ["global", "feature=runqlat"])
        assert (answer["ok"], answer["changed"], answer["persisted"], answer["left"]) == (True, True, True, 0)
        assert len(self.orders(tmp_path)) == 4
        again = self.run(shell, tmp_path, ["global", "feature=runqlat"])
        assert (again["ok"], again["changed"]) == (True, False)

    def test_release_removes_both_and_only_its_own(self, shell: str, tmp_path: Path) -> None:
        self.run(shell, tmp_path, ["global", "feature=runqlat"])
        answer = self.run(shell, tmp_path, ["global"], state="released")
        assert (answer["ok"], answer["changed"]) == (True, True)
        assert self.orders(tmp_path) == [
            "etc/ebpf-fleet/kill.d/feature.runqlat",
            "run/ebpf-fleet/kill.d/feature.runqlat",
        ]
        assert self.run(shell, tmp_path, ["global"], state="released")["changed"] is False

    def test_not_persistent_leaves_etc_alone(self, shell: str, tmp_path: Path) -> None:
        answer = self.run(shell, tmp_path, ["global"], persistent=False)
        assert (answer["ok"], answer["persisted"]) == (True, False)
        assert self.orders(tmp_path) == ["run/ebpf-fleet/kill.d/global"]

    def test_a_read_only_etc_is_said_and_the_kill_still_works(self, shell: str, tmp_path: Path) -> None:
        etc = tmp_path / "etc"
        etc.mkdir()
        answer = self.run(shell, tmp_path, ["global"], f"mount -t tmpfs -o ro none {etc}")
        assert (answer["ok"], answer["persisted"]) == (True, False)

    def test_a_full_etc_is_said_and_the_kill_still_works(self, shell: str, tmp_path: Path) -> None:
        etc = tmp_path / "etc"
        etc.mkdir()
        answer = self.run(shell, tmp_path, ["global"], f"mount -t tmpfs -o nr_inodes=1 none {etc}")
        assert (answer["ok"], answer["persisted"]) == (True, False)

    def test_a_run_that_refuses_leaves_etc(self, shell: str, tmp_path: Path) -> None:
        run = tmp_path / "run"
        run.mkdir()
        answer = self.run(shell, tmp_path, ["global"], f"mount -t tmpfs -o ro none {run}")
        assert (answer["ok"], answer["persisted"]) == (True, True)

    def test_nowhere_to_put_the_order_is_a_failure(self, shell: str, tmp_path: Path) -> None:
        block = f"mount -t tmpfs -o ro none {tmp_path}"
        answer = self.run(shell, tmp_path, ["feature=runqlat"], block)
        assert answer["ok"] is False
        assert "no order can be placed" in answer["detail"]

    def test_a_folder_in_the_way_is_a_failure_of_release(self, shell: str, tmp_path: Path) -> None:
        self.run(shell, tmp_path, ["global"])
        etc = tmp_path / "etc"
        answer = self.run(
            shell, tmp_path, ["global"], f"mount --bind {etc} {etc}; mount -o remount,ro,bind {etc}", state="released"
        )
        assert (answer["ok"], answer["detail"]) == (False, "cannot remove the order: global")

    def test_families(self, shell: str, tmp_path: Path) -> None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/os-release").write_text("NAME=x\nID='weird'\nVERSION_ID=1\n")
        family = ".".join(os.uname().release.split(".")[:2])
        for own in (family, f"weird-{family}"):
            answer = self.run(shell, tmp_path, [f"kernel_family={own}"])
            assert (answer["ok"], answer["left"]) == (True, 0), own
        other = self.run(shell, tmp_path, ["kernel_family=other-9.9"])
        assert (other["ok"], other["left"]) == (True, None)
        assert "does not concern" in other["detail"]
        assert "run/ebpf-fleet/kill.d/family.other-9.9" in self.orders(tmp_path)

    def test_a_feature_within_a_family_is_placed_on_a_host_of_it_alone(self, shell: str, tmp_path: Path) -> None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/os-release").write_text("ID=weird\n")
        kernel = ".".join(os.uname().release.split(".")[:2])
        for other in ("9.9", "weird-9.9", f"other-{kernel}"):
            answer = self.run(shell, tmp_path, [f"feature=runqlat,kernel_family={other}"])
            told = (answer["ok"], answer["placed"], answer["concerned"], answer["changed"], answer["persisted"])
            assert told == (True, False, False, False, False) and "not placed" in answer["detail"], answer
            assert self.orders(tmp_path) == []
        files = ["etc/ebpf-fleet/kill.d/feature.runqlat", "run/ebpf-fleet/kill.d/feature.runqlat"]
        for own in (kernel, f"weird-{kernel}"):
            scopes = [f"feature=runqlat,kernel_family={own}"]
            answer = self.run(shell, tmp_path, scopes)
            assert (answer["ok"], answer["placed"], answer["persisted"], answer["changed"]) == (True, True, True, True)
            assert {(tmp_path / one).read_text() for one in files} == {f"family {own}\n"}
            again = self.run(shell, tmp_path, scopes)
            assert (again["ok"], again["changed"]) == (True, False), again
            assert {(tmp_path / one).read_text() for one in files} == {f"family {own}\n"}, "it stays of that family"
            # Another order's file stays, and that of a host that got another kernel since is known by its content.
            other = self.run(shell, tmp_path, ["feature=runqlat,kernel_family=9.9"], state="released")
            assert (other["ok"], other["concerned"], self.orders(tmp_path)) == (True, False, files), other
            for one in files:
                (tmp_path / one).write_text("family 9.9\n")
            back = self.run(shell, tmp_path, ["feature=runqlat,kernel_family=9.9"], state="released")
            assert (back["ok"], back["concerned"], self.orders(tmp_path)) == (True, True, []), back

    def test_a_host_that_cannot_tell_its_family_gets_no_order_within_it(self, shell: str, tmp_path: Path) -> None:
        kernel = ".".join(os.uname().release.split(".")[:2])
        answer = self.run(shell, tmp_path, [f"feature=runqlat,kernel_family=weird-{kernel}"])
        assert (answer["ok"], answer["placed"], answer["concerned"]) == (False, False, None)
        assert "its os-release names no distribution" in answer["detail"] and self.orders(tmp_path) == []

    def test_a_full_etc_is_said_of_an_order_within_a_family_too(self, shell: str, tmp_path: Path) -> None:
        (tmp_path / "etc").mkdir()
        kernel = ".".join(os.uname().release.split(".")[:2])
        full = f"mount -t tmpfs -o nr_inodes=1 none {tmp_path}/etc"
        answer = self.run(shell, tmp_path, [f"feature=runqlat,kernel_family={kernel}"], full)
        assert (answer["ok"], answer["placed"], answer["persisted"]) == (True, True, False)
        assert self.orders(tmp_path) == ["run/ebpf-fleet/kill.d/feature.runqlat"]

    def test_the_bundles_own_program_is_never_run(self, shell: str, tmp_path: Path) -> None:
        loader = tmp_path / "var/lib/ebpf-fleet/current/ebpf-loader"
        loader.parent.mkdir(parents=True)
        loader.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        loader.chmod(0o755)
        assert self.run(shell, tmp_path, ["global"])["ok"] is True
        assert self.run(shell, tmp_path, ["global"], state="query")["ok"] is True
        assert not (tmp_path / "ran").exists()

    def test_a_query_changes_nothing(self, shell: str, tmp_path: Path) -> None:
        self.run(shell, tmp_path, ["feature=runqlat"])
        before = self.orders(tmp_path)
        answer = self.run(shell, tmp_path, ["global", "feature=runqlat"], state="query")
        assert (answer["ok"], answer["changed"], answer["left"]) == (True, False, 0)
        assert "orders that hold: feature.runqlat;" in answer["detail"]
        assert self.orders(tmp_path) == before

    def test_without_root_it_does_not_claim_anything(self, shell: str, tmp_path: Path) -> None:
        script = killscript.render(["global"], root=str(tmp_path / "none"))
        done = subprocess.run(
            [*SHELLS[shell], "-c", script], capture_output=True, text=True, check=False, user=65534, cwd="/"
        )
        answer = kill_answer.parse_answer({"rc": done.returncode, "stdout": done.stdout})
        assert (done.returncode, answer["ok"]) == (1, False)
        assert "not root" in answer["detail"]
