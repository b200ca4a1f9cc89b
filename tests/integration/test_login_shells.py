# SPDX-License-Identifier: GPL-3.0-or-later
"""The order arrives through any login shell, its answer is found whatever a profile prints; three numbers are told."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, Iterator

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import rollback
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import script as killscript

from tests.integration.test_fan_out import ask, play
from tests.support import sshhosts
from tests.support.play import RELEASE

pytestmark = pytest.mark.skipif(bool(sshhosts.why_not()), reason=sshhosts.why_not() or "can be made")

# A login shell, and where it reads a profile for a command over SSH; busybox is told by its name.
SHELLS = {
    "bash": ("/bin/bash", ".bashrc"), "dash": ("/bin/dash", None), "zsh": ("/usr/bin/zsh", ".zshenv"),
    "ksh": ("/usr/bin/ksh", None), "mksh": ("/usr/bin/mksh", None), "tcsh": ("/usr/bin/tcsh", ".tcshrc"),
    "csh": ("/usr/bin/csh", ".cshrc"), "fish": ("/usr/bin/fish", ".config/fish/config.fish"),
    "busybox": ("/run/home/ash", None),
}  # fmt: skip
# A greeting without a newline, a title escape, lines, colours.
GREETINGS = {
    "title": "printf '\\033]0;host\\007'; printf 'Welcome to the machine'",
    "lines": "echo Welcome; echo; echo 'Last login: never'",
    "paint": "printf '\\033[2J\\033[31mred'",
    "question": "printf 'Continue? [y/N] '",
}
HAVE = [name for name, (path, _profile) in SHELLS.items() if name == "busybox" or os.path.exists(path)]
FEATURES = ("exec_events", "runqlat")
SETUP = """set -e
mkdir -p /run/home/.config/fish
ln -s "$(command -v busybox)" /run/home/ash
sed -i "s|^root:.*|root:x:0:0:root:/run/home:$1|" /etc/passwd
[ -z "$2" ] || printf '%s\\n' "$3" >"/run/home/$2"
for feature in exec_events runqlat; do mkdir -p /var/lib/ebpf-fleet/current/bundle/features/$feature; done
"""


def add(fleet: sshhosts.Hosts, name: str, shell: str, greeting: str = "", **more: Any) -> None:
    path, profile = SHELLS[shell]
    fleet.add("good", name, **more)
    wait = [name, "sh", "-c", SETUP, "sh", path, (profile or "") if greeting else "", greeting]
    fleet.wait()
    fleet.inside(*wait)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshhosts.Hosts]:
    """A host for each shell and for each greeting, with and without a terminal, with a release of two features."""
    made = sshhosts.Hosts(tmp_path_factory.mktemp("shells"), first=600)
    try:
        for shell in HAVE:
            add(made, f"shell-{shell}", shell)
        for name, greeting in GREETINGS.items():
            add(made, f"greets-{name}", "bash", greeting)
        for shell in [shell for shell in HAVE if SHELLS[shell][1] and shell != "bash"]:
            add(made, f"greets-{shell}", shell, "echo -n Welcome")
        add(made, "greets-terminal", "bash", GREETINGS["title"], ansible_ssh_use_tty=True)
        yield made
    finally:
        made.stop()


def order(folder: Path, fleet: sshhosts.Hosts, *options: str, **variables: Any) -> tuple[Any, dict[str, Any]]:
    given = ("-e", "ebpf_fleet_report=record.json", *options)
    ran = play(folder, "ebpf.fleet.rollback", fleet.inventory(**variables), *given)
    path = folder / "record.json"
    return ran, json.loads(path.read_text()) if path.exists() else {}


def orders(fleet: sshhosts.Hosts, name: str) -> list[str]:
    return fleet.inside(name, "ls", "/run/ebpf-fleet/kill.d").split()


def test_kill_and_release_reach_every_host_through_its_shell(tmp_path, fleet):
    ran, record = order(tmp_path, fleet, "-e", "scope=feature=exec_events")
    assert ran.rc == 0 and record["missing"] == [], ran.text
    count = len(fleet.names)
    assert record["numbers"] == {
        "placed": count, "concerned": count, "off": count, "not_concerned": 0, "unknown": 0, "unconfirmed": 0,
    }  # fmt: skip
    assert record["off"] == record["concerned"] == sorted(fleet.names)
    for name in fleet.names:
        assert orders(fleet, name) == ["feature.exec_events"], name
    ran, record = order(tmp_path, fleet, "-e", "scope=feature=exec_events", *RELEASE)
    assert ran.rc == 0 and record["concerned"] == sorted(fleet.names), ran.text
    for name in fleet.names:
        assert orders(fleet, name) == [], name


@pytest.mark.parametrize("digest", ["", "a" * 64])
def test_the_ways_back_reach_every_host_through_its_shell(tmp_path, fleet, digest):
    """What scope=previous and a failed rollout give: with no release that is active, each says so in its answer."""
    command = killscript.command(rollback.render_rollback(digest or None))
    for name in fleet.names:
        fleet.inside(name, "mkdir", "-p", "/var/lib/ebpf-fleet")
    found = ask(tmp_path, fleet.inventory(), command=command)
    for name, result in found.items():
        assert f"\n{rollback.MARK}" in result["stdout"].replace("\r", ""), (name, result)


@pytest.mark.slow
def test_through_become_too(tmp_path, tmp_path_factory):
    """sudo gives the command to sh, su to root's own shell: each within the login shell of another."""
    have = [method for method in ("sudo", "su") if shutil.which(method)]
    made = sshhosts.Hosts(tmp_path_factory.mktemp("become"), first=640)
    script = """set -e; useradd -M -d /run/home -s "$1" keeper; printf 'keeper:of keeper\\nroot:of root\\n' | chpasswd
        mkdir -p /etc/sudoers.d; echo 'keeper ALL=(ALL) ALL' >/etc/sudoers.d/keeper; chmod 440 /etc/sudoers.d/keeper"""
    passwords = {"sudo": "of keeper", "su": "of root"}
    try:
        for method in have:
            for shell in [shell for shell in ("bash", "fish", "tcsh", "zsh") if shell in HAVE]:
                for tty in (True, False) if method == "sudo" else (True,):
                    name = f"{method}-{shell}-{tty}"
                    become = {"ansible_become": True, "ansible_become_method": method}
                    become |= {"ansible_become_password": passwords[method], "ansible_user": "keeper"}
                    add(made, name, shell, "echo -n Welcome", ansible_ssh_use_tty=tty, **become)
                    made.inside(name, "sh", "-c", script, "sh", SHELLS[shell][0])
        ran, record = order(tmp_path, made, "-e", "scope=feature=exec_events")
        assert ran.rc == 0 and record["off"] == sorted(made.names), ran.text
    finally:
        made.stop()


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("feature=exec_event", "No host has a feature exec_event; did you mean 'exec_events'?"),
        ("feature=run_qlat", "did you mean 'runqlat'?"),
        ("feature=zzz", "choose one of: exec_events, runqlat"),
        ("kernel_family=99.81", "No host is of kernel family 99.81"),
        ("kernel_family=debian-99.1", "No host is of kernel family debian-99.1; did you mean 'debian-"),
    ],
)
@pytest.mark.slow
def test_an_order_that_concerns_no_host_is_placed_and_is_a_failure_with_the_nearest_name(tmp_path, fleet, given, words):
    some = ("--limit", "shell-dash,shell-bash")
    ran, record = order(tmp_path, fleet, "-e", f"scope={given}", *some)
    assert ran.rc == 2, ran.text
    assert words in " ".join(record["verdict"]), record["verdict"]
    assert (record["numbers"]["placed"], record["numbers"]["concerned"], record["numbers"]["off"]) == (2, 0, 0)
    assert failed(ran.text) == ["shell-bash", "shell-dash"]
    assert orders(fleet, "shell-dash") == [given.replace("kernel_", "").replace("=", ".")], "the order comes first"
    ran, _record = order(tmp_path, fleet, "-e", f"scope={given}", "-e", "allow_unconcerned=true", *some)
    assert ran.rc == 0, ran.text
    ran, record = order(tmp_path, fleet, "-e", f"scope={given}x"[:-1], *RELEASE, *some)
    assert ran.rc == 0 and record["numbers"]["concerned"] == 2, ran.text


@pytest.mark.slow
def test_taking_back_what_no_host_has_is_a_failure_with_the_nearest_order(tmp_path, fleet):
    some = ("--limit", "shell-dash,shell-bash")
    order(tmp_path, fleet, "-e", "scope=feature=exec_events", *some)
    ran, record = order(tmp_path, fleet, "-e", "scope=feature=exec_event", *RELEASE, *some)
    said = " ".join(record["verdict"])
    assert ran.rc == 2 and "did you mean 'feature=exec_events'?" in said, ran.text
    assert orders(fleet, "shell-dash") == ["feature.exec_events"]
    order(tmp_path, fleet, "-e", "scope=feature=exec_events", *RELEASE, *some)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("scope=globl", "scope 'globl' is not one: did you mean global?"),
        ("scope=Feature=exec_events", "did you mean feature=exec_events?"),
        ("scope=exec_events", "did you mean feature=exec_events?"),
        ("scope=kernel-family=6.18", "did you mean kernel_family=6.18?"),
        ("scope=family=6.18", "did you mean kernel_family=6.18?"),
        ("scope=global state=releasd", "did you mean released?"),
        ("scope=previous state=released", "roll the release out again"),
        ("scop=global", "Say what to turn off with -e scope="),
    ],
)
@pytest.mark.sample(3)
def test_an_order_that_cannot_be_meant_is_one_sentence_before_anything(tmp_path, fleet, given, words):
    ran, record = order(tmp_path, fleet, "-e", given, "--limit", "shell-dash")
    assert ran.rc != 0 and words in " ".join(ran.text.split()), ran.text
    assert "filter" not in ran.text and "Finalization" not in ran.text and "Origin:" not in ran.text.split("fatal:")[1]
    assert record == {} and "Engage or release the kill order" not in ran.text


def failed(text: str) -> list[str]:
    """The hosts that the recap shows as failed."""
    return sorted(re.findall(r"^(\S+) +: ok=\d+ .*failed=1", text, re.MULTILINE))


@pytest.mark.slow
def test_the_verdict_is_the_last_thing_on_the_screen(tmp_path, fleet):
    """Hosts that are off, that it does not concern, and that do not confirm for several reasons, forty in all."""
    with sshhosts.hosts(tmp_path, *["nologin"] * 12, *["refused"] * 8, *["good"] * 8, first=700) as more:
        more.variables.update({name: fleet.variables[name] for name in fleet.names if name.startswith("shell-")})
        for name in fleet.names:
            if name.startswith("shell-"):
                more.variables[name] = fleet.variables[name] | {
                    "ansible_ssh_common_args": f"-o UserKnownHostsFile={fleet.folder}/known_hosts -F none"
                }
        fleet.inventory()
        ran, record = order(tmp_path, more, "-e", "scope=feature=exec_events")
    lines = ran.text.rstrip("\n").split("\n")
    assert lines[-len(record["verdict"]) :] == record["verdict"], "something was said after the verdict"
    assert ran.rc == 2 and failed(ran.text) == record["missing"] == more.of_kind("nologin", "refused")
    said = "\n".join(record["verdict"])
    off, rest = len([name for name in fleet.names if name.startswith("shell-")]), 8
    assert f"off: {off}; the slowest took" in said and f"not concerned: {rest}" in said and "NOT CONFIRMED: 20" in said
    assert "it said: This account is currently not available. (exit status 1)" in said and "Connection refused" in said
    assert "Next: " in said and len(record["verdict"]) < 30
    assert max(len(line) for line in record["verdict"]) <= 130
