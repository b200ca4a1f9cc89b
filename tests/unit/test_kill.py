# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill orders and the kill script as it is rendered; tests/integration/test_kill_script.py runs it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfsys
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import answer as kill_answer
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import evidence, orders
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import script as killscript

# Login shells of Debian and RHEL that are no sh, or a sh of their own kind.
LOGIN_SHELLS = ("zsh", "ksh", "mksh", "fish", "tcsh", "csh")
SHELLS = {"dash": ["dash"], "busybox": ["busybox", "sh"], "bash": ["bash", "--posix"]}


class TestScopes:
    @pytest.mark.parametrize(
        ("text", "order"),
        [
            ("global", "global"),
            ("feature=exec_events", "feature.exec_events"),
            ("kernel_family=6.1", "family.6.1"),
            ("kernel_family=debian-6.1", "family.debian-6.1"),
            ("kernel_family=opensuse-leap-6.4", "family.opensuse-leap-6.4"),
        ],
    )
    def test_orders(self, text: str, order: str) -> None:
        assert orders.parse_scope(text).order == order

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "Global",
            "global=1",
            "feature",
            "feature=",
            "feature=Exec",
            "feature=a b",
            "feature=../etc",
            "feature=a;reboot",
            "feature=$(reboot)",
            "feature=a\nb",
            "kernel_family=6",
            "kernel_family=six",
            "kernel_family=-6.1",
            "family=6.1",
            None,
            7,
        ],
    )
    def test_anything_else_is_refused(self, text: Any) -> None:
        with pytest.raises(orders.ScopeError, match="[Ww]rite global, feature=NAME or kernel_family"):
            orders.parse_scope(text)

    @pytest.mark.parametrize("texts", [[], "global", None, {}])
    def test_no_list_is_refused(self, texts: Any) -> None:
        with pytest.raises(orders.ScopeError, match="give a list"):
            orders.parse_scopes(texts)

    def test_each_once(self) -> None:
        assert len(orders.parse_scopes(["global", "global", "feature=a"])) == 2

    def test_whom_it_concerns(self) -> None:
        families = ["6.1", "debian-6.1"]
        assert orders.concerns_all(orders.parse_scopes(["global"]), families)
        assert orders.concerns_all(orders.parse_scopes(["kernel_family=debian-6.1"]), families)
        assert not orders.concerns_all(orders.parse_scopes(["kernel_family=6.10"]), families)
        assert not orders.concerns_all(orders.parse_scopes(["feature=a"]), families)


class TestFiles:
    def test_programs_list(self) -> None:
        text = "12 ab12 runqlat ef_rql\n13 cd34 exec_events ef_exec\n² ab runqlat ef_x\n1 ab a;b ef_x\n14 cut\n"
        assert [(one.id, one.feature) for one in evidence.parse_programs(text)] == [
            (12, "runqlat"),
            (13, "exec_events"),
        ]

    def test_programs_of_others_are_ours_where_a_list_of_ours_had_them(self) -> None:
        listed = evidence.parse_programs("1 aa third a_name_longer_than_15\n")
        kernel = [
            evidence.Attached(5, "aa", "", "a_name_longer_t"),
            evidence.Attached(6, "aa", "", "another"),
            evidence.Attached(7, "bb", "", "ef_mine"),
        ]
        assert [one.id for one in evidence.ours(kernel, listed)] == [5, 7]

    def test_fdinfo(self) -> None:
        assert evidence.parse_fdinfo("pos:\t0\nlink_type:\ttracing\nprog_tag:\tab\nprog_id:\t41\n") == 41
        assert evidence.parse_fdinfo("pos:\t0\nflags:\t02\n") is None

    def test_place_and_remove_say_what_changed(self, tmp_path: Path) -> None:
        folder, scopes = tmp_path / "a/kill.d", orders.parse_scopes(["global", "feature=x"])
        assert orders.orders_in(folder) == []
        assert len(orders.place(folder, scopes)) == 2
        assert orders.place(folder, scopes) == []
        assert orders.orders_in(folder) == ["feature.x", "global"]
        assert len(orders.remove(folder, scopes)) == 2
        assert orders.remove(folder, scopes) == []

    def test_hidden_files_are_no_orders(self, tmp_path: Path) -> None:
        (tmp_path / ".global").touch()
        assert orders.orders_in(tmp_path) == []


class TestRender:
    @pytest.mark.parametrize("state", killscript.STATES)
    @pytest.mark.parametrize("scopes", [["global"], ["feature=a"], ["kernel_family=6.1"]])
    def test_shellcheck_finds_nothing(self, state: str, scopes: list[str]) -> None:
        if shutil.which("shellcheck") is None:
            pytest.skip("shellcheck is not installed here")
        script = killscript.render(scopes, state)
        command = ["shellcheck", "-s", "sh", "-e", "SC2034,SC2317", "-"]
        done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
        assert done.stdout == ""

    @pytest.mark.parametrize("state", killscript.STATES)
    def test_nothing_that_a_shell_or_a_template_would_take_apart(self, state: str) -> None:
        script = killscript.render(["global", "feature=a", "kernel_family=6.1"], state)
        for mark in ("'", "{{", "{%", "{#"):
            assert mark not in script, mark
        assert re.findall(r"@[A-Z_]+@", script) == []

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"state": "off"}, "say one of"),
            ({"grace_seconds": -1}, "grace_seconds"),
            ({"grace_seconds": True}, "grace_seconds"),
            ({"deadline_seconds": 601}, "deadline_seconds"),
            ({"grace_seconds": 10}, "less than"),
            ({"unit": "a; reboot"}, "unit"),
            ({"root": "/tmp/a b"}, "root"),
            ({"root": "relative"}, "root"),
            ({"scopes": ["feature=a;reboot"]}, "scope"),
        ],
    )
    def test_bad_arguments_are_refused(self, more: dict[str, Any], message: str) -> None:
        with pytest.raises(FleetError, match=message) as caught:
            killscript.render(**{"scopes": ["global"], **more})
        assert caught.value.code == "EF_ARGUMENT"

    @pytest.mark.parametrize(
        ("login", "deadline"),
        [(1, 10), (20, 10), (20.9, 10), (21, 11), (30, 20), (609, 599), (610, 600), (611, 600), (3600, 600)],
    )
    def test_each_login_that_is_allowed_has_a_deadline_that_is(self, login: float, deadline: int) -> None:
        script = killscript.render(["global"], deadline_seconds=killscript.deadline_within(login))
        assert f"\ndeadline={deadline}\n" in script

    @pytest.mark.parametrize("shell", sorted({*SHELLS, *LOGIN_SHELLS}))
    def test_a_command_reaches_sh_unchanged_through_any_shell(self, shell: str) -> None:
        argv = SHELLS.get(shell, [shell])
        if shutil.which(argv[0]) is None:
            pytest.skip(f"{shell} is not installed here")
        text = "a'b\"c \\ \\\\ \\' \\n !! !x 41!5 $HOME `id` %s ^x^y {a,b} ~ * ? [x] # ; & | < > ( )\tt\n end"
        script = f"cat <<\\END\n{text * 40}\nEND\necho $#"
        command = killscript.command(script)
        assert "\n" not in command and "!" not in command
        for given in (command, f"/bin/sh -c {shlex.quote(command)}"):
            done = subprocess.run([*argv, "-c", given], capture_output=True, text=True, check=False)
            assert (done.stdout, done.stderr) == (f"{text * 40}\n0\n", "")


class TestAnswer:
    GOOD = (
        'ebpf-fleet-kill: {"ok":true,"changed":true,"host_ms":40,"left":0,'
        '"persisted":true,"escalated":false,"detail":"off"}'
    )

    def test_read(self) -> None:
        answer = kill_answer.parse_answer({"rc": 0, "stdout": f"motd\r\n{self.GOOD}\r\n"})
        assert (answer["ok"], answer["host_ms"], answer["left"]) == (True, 40, 0)

    def test_an_answer_that_contradicts_another_is_not_a_yes(self) -> None:
        bad = self.GOOD.replace("true", "false", 1)
        assert kill_answer.parse_answer(f"{self.GOOD}\n{bad}\n")["ok"] is False

    @pytest.mark.parametrize(
        "result",
        [
            {"unreachable": True, "msg": "timed out"},
            {"rc": 1, "stdout": GOOD},
            {"rc": 255, "stdout": ""},
            {"rc": 0, "stdout": GOOD[:-3]},
            {"rc": 0, "stdout": "ebpf-fleet-kill: []"},
            {"rc": 0, "stdout": 'ebpf-fleet-kill: {"ok":"true"}'},
            {"rc": 0, "stdout": f"echo {GOOD}"},
            {},
            "",
            None,
            7,
        ],
    )
    def test_anything_but_a_clear_yes_is_no(self, result: Any) -> None:
        answer = kill_answer.parse_answer(result)
        assert answer["ok"] is False
        assert answer["detail"]


def test_held_programs_sees_this_process() -> None:
    if os.geteuid() != 0:
        pytest.skip("loading a program needs root")

    fd = bpfsys.prog_load(bpfsys.ProgramSpec(type=17))
    try:
        mine = {program for program, pids in evidence.held_programs(Path("/proc")).items() if os.getpid() in pids}
        assert len(mine) == 1
    finally:
        os.close(fd)
