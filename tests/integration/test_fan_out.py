# SPDX-License-Identifier: GPL-3.0-or-later
"""The fan-out over real OpenSSH: hosts that hang in every way hold up no other, and each is named truly."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support import sshhosts
from tests.support.play import RELEASE

ROOT = Path(__file__).resolve().parents[2]
# Of the machine, such as a container that forbids namespaces: tests/holes.yml has each with its why.
pytestmark = pytest.mark.skipif(bool(sshhosts.why_not()), reason=sshhosts.why_not() or "can be made")

HANGING = {"silent": 9, "in_login": 9, "asleep": 9, "lost": 9, "flood": 4}
GOOD = 20
LOCAL = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}


class Ran(NamedTuple):
    """How a playbook ended."""

    rc: int
    text: str
    seconds: float


def command(playbook: str, inventory: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "ansible", "playbook", "-i", str(inventory), playbook, *options]


def environment(**more: str) -> dict[str, str]:
    return {
        **os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_LOCALHOST_WARNING": "false", **more,
    }  # fmt: skip


def play(folder: Path, playbook: str, inventory: Path, *options: str, timeout: float = 200, **more: str) -> Ran:
    """Run a playbook in a folder; one that does not end in time is a failure of the test."""
    begun = time.monotonic()
    done = subprocess.run(
        command(playbook, inventory, *options),
        env={**environment(**more), "PWD": str(folder)}, cwd=folder, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False, timeout=timeout,
    )  # fmt: skip
    return Ran(done.returncode, done.stdout + done.stderr, time.monotonic() - begun)


def write_play(folder: Path, task: dict[str, Any], **keywords: Any) -> Path:
    """A playbook of one fan_out task that keeps what it returned in result.json."""
    keep = {
        "ansible.builtin.copy": {"content": "{{ found | to_json }}", "dest": str(folder / "result.json")},
        "run_once": True,
        "delegate_to": "localhost",
        "vars": LOCAL,
    }
    arguments = {"hosts": "{{ ansible_play_hosts_all }}", **task}
    ask = {"ebpf.fleet.fan_out": arguments, "register": "found", "run_once": True, "delegate_to": "localhost"}
    path = folder / "play.yml"
    path.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [ask, keep], **keywords}]))
    return path


def ask(
    folder: Path, inventory: Path, *options: str, play_keywords: dict[str, Any] | None = None, **task: Any
) -> dict[str, dict[str, Any]]:
    """{host: result} of one fan-out."""
    ran = play(folder, str(write_play(folder, task, **(play_keywords or {}))), inventory, *options)
    assert ran.rc == 0, ran.text
    found: dict[str, dict[str, Any]] = json.loads((folder / "result.json").read_text())["hosts"]
    return found


def running(words: str) -> list[str]:
    """The ssh processes of this machine whose command line holds these words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if words in line and line.startswith("ssh "):
            found.append(line)
    return found


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory):
    """Forty hosts that hang or will not do, among twenty good ones; the bad ones come first."""
    kinds = [kind for kind, number in HANGING.items() for _ in range(number)]
    with sshhosts.hosts(tmp_path_factory.mktemp("mixed"), *kinds, *["good"] * GOOD, first=1) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory):
    """One host of each kind."""
    with sshhosts.hosts(tmp_path_factory.mktemp("few"), *sshhosts.KINDS, first=200) as fleet:
        yield fleet


@pytest.mark.slow
def test_forty_hanging_hosts_keep_no_good_host_from_its_kill(tmp_path, mixed):
    inventory = mixed.inventory(ebpf_fleet_connect_timeout=8)
    options = ("-e", "scope=global", "-e", "ebpf_fleet_report=record.json", "-e", "ebpf_fleet_kill_timeout=15")
    ran = play(tmp_path, "ebpf.fleet.rollback", inventory, "--forks", "20", *options, timeout=150)
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["confirmed"] == mixed.of_kind("good"), ran.text
    assert record["missing"] == mixed.of_kind(*HANGING)
    slow = {name: record["seconds"][name] for name in record["confirmed"] if record["seconds"][name] > 10}
    assert slow == {}, "good hosts waited for hanging ones"
    assert ran.rc == 2 and ran.seconds < 75, f"{ran.seconds:.0f} s"
    reasons = {
        "silent": "banner exchange",
        "in_login": "did not answer within 8 s (logged in: no",
        "asleep": "did not answer within 15 s (logged in: yes",
        "lost": "did not answer within 15 s (logged in: yes",
        "flood": "sent more than 4 MiB",
    }
    for name in record["missing"]:
        assert reasons[mixed.names[name]] in record["hosts"][name]["detail"], (name, record["hosts"][name])
    for name in record["confirmed"]:
        assert mixed.inside(name, "ls", "/run/ebpf-fleet/kill.d").split() == ["global"]


def test_the_recap_shows_as_failed_exactly_who_has_not_confirmed_and_the_verdict_comes_last(tmp_path, few):
    # The longest time that a login can be given: the script's own bound is another one.
    options = ("--limit", "good-*,nologin-*,refused-*", "-e", "scope=feature=none_such", *RELEASE,
               "-e", "allow_unconcerned=true", "-e", "ebpf_fleet_kill_timeout=3600")  # fmt: skip
    ran = play(tmp_path, "ebpf.fleet.rollback", few.inventory(), *options)
    failed = re.findall(r"^(\S+) +: ok=\d+ .*failed=1", ran.text, re.MULTILINE)
    assert sorted(failed) == few.of_kind("nologin", "refused") and ran.rc == 2, ran.text
    last = " ".join(ran.text.split("PLAY RECAP")[1].split())
    assert "NOT CONFIRMED: 2" in last and "1 of 3 hosts confirmed" in " ".join(ran.text.split())
    assert "This account is currently not available" in last and "Connection refused" in last


def test_every_kind_of_host_is_named_with_its_true_reason(tmp_path, few):
    found = ask(tmp_path, few.inventory(), command="echo hello", timeout=5, connect_timeout=5)
    assert list(found) == list(json.loads((tmp_path / "result.json").read_text())["hosts"])
    assert sorted(found) == sorted(few.names)
    by_kind = {few.names[name]: result for name, result in found.items()}
    assert {kind for kind, result in by_kind.items() if not result["failed"]} == {"good", "noisy", "slow"}
    assert {kind for kind, result in by_kind.items() if result["unreachable"]} == {"silent", "refused", "in_login"}
    assert by_kind["noisy"]["stdout"] == "Welcome to noisehello\r\nBye\r\n"
    assert "Connection refused" in by_kind["refused"]["msg"]
    assert by_kind["nologin"]["rc"] == 1
    assert "This account is currently not available" in by_kind["nologin"]["msg"]
    assert "logged in: yes" in by_kind["lost"]["msg"]
    assert len(by_kind["flood"]["stdout"]) < 70_000
    assert running(f"Port={sshhosts.PORT}") == [], "an ssh that was given up still runs"


@pytest.mark.sample(1)
@pytest.mark.parametrize("text", ["echo one; echo two >&2; exit 3", "printf 'a\\377b'; cat /proc/self/stat | head -c0"])
def test_a_result_equals_what_raw_gives(tmp_path, few, text):
    inventory = few.inventory()
    found = ask(tmp_path, inventory, "--limit", "good-*", command=text)
    raw = {
        "hosts": "all", "gather_facts": False,
        "tasks": [
            {"ansible.builtin.raw": text, "register": "found", "failed_when": False},
            {"ansible.builtin.copy": {"content": "{{ found | to_json }}", "dest": str(tmp_path / "raw.json")},
             "vars": LOCAL},
        ],
    }  # fmt: skip
    (tmp_path / "raw.yml").write_text(json.dumps([raw]))
    ran = play(tmp_path, str(tmp_path / "raw.yml"), inventory, "--limit", "good-*")
    assert ran.rc == 0, ran.text
    expected = json.loads((tmp_path / "raw.json").read_text())
    (result,) = found.values()
    assert result["rc"] == expected["rc"]
    assert result["stdout"] == expected["stdout"].replace("\udcff", "\ufffd")


@pytest.mark.slow
def test_logins_that_hang_give_their_place_to_the_next_host(tmp_path, mixed):
    hosts = [*mixed.of_kind("in_login"), *mixed.of_kind("good")[:4]]
    begun = time.monotonic()
    found = ask(tmp_path, mixed.inventory(), hosts=hosts, command="echo", connect_timeout=25, logins=3)
    assert [name for name, result in found.items() if result["failed"]] == mixed.of_kind("in_login")
    assert all(found[name]["seconds"] < 10 for name in mixed.of_kind("good")[:4])
    # Three at a time, each to its bound, would take 75 s before the first good one had its turn.
    assert time.monotonic() - begun < 60


@pytest.mark.slow
def test_every_name_of_the_inventory_is_addressed_and_accounted_for(tmp_path, tmp_path_factory):
    names = ["fe80::1%eth0", "db: primary", "web, blue", "cache (old)", "i-0abc:eu-west-1", "plain"]
    fleet = sshhosts.Hosts(tmp_path_factory.mktemp("odd"), first=400)
    try:
        for name in names:
            fleet.add("good", name)
        fleet.wait()
        options = ("-e", "scope=global", "-e", "ebpf_fleet_report=record.json")
        ran = play(tmp_path, "ebpf.fleet.rollback", fleet.inventory(), *options)
        assert ran.rc == 0, ran.text
        assert json.loads((tmp_path / "record.json").read_text())["confirmed"] == sorted(names)
        for name in names:
            assert fleet.inside(name, "ls", "/run/ebpf-fleet/kill.d").split() == ["global"]
    finally:
        fleet.stop()


def test_a_play_that_is_ended_leaves_no_ssh_behind(tmp_path, few):
    inventory = few.inventory()
    path = write_play(tmp_path, {"command": "sleep 1000", "timeout": 600})
    mark = f"Port={sshhosts.PORT}"
    process = subprocess.Popen(
        command(str(path), inventory, "--limit", "good-*,asleep-*"), env=environment(), cwd=tmp_path,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        wait_until(lambda: len(running(mark)) >= 2)
        os.killpg(process.pid, signal.SIGINT)
        wait_until(lambda: running(mark) == [])
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def with_users(tmp_path_factory: pytest.TempPathFactory):
    """A host with a user who must become root by a password."""
    with sshhosts.hosts(tmp_path_factory.mktemp("users"), "good", first=440) as fleet:
        (name,) = fleet.names
        script = """set -e; useradd -M -d / -s /bin/sh keeper
            printf 'keeper:of keeper\\nroot:of root\\n' | chpasswd
            mkdir -p /etc/sudoers.d
            echo 'keeper ALL=(ALL) ALL' >/etc/sudoers.d/keeper; chmod 440 /etc/sudoers.d/keeper"""
        fleet.inside(name, "sh", "-c", script)
        yield fleet


def become(fleet, method: str, password: str | None, **more: Any) -> dict[str, Any]:
    if not any(Path(folder, method).exists() for folder in ("/bin", "/usr/bin")):
        pytest.skip(f"{method} is not installed")
    given = {} if password is None else {"ansible_become_password": password}
    return {"ansible_user": "keeper", "ansible_become": True, "ansible_become_method": method, **given, **more}


@pytest.mark.parametrize(("method", "password"), [("sudo", "of keeper"), ("su", "of root")])
@pytest.mark.sample(1)
def test_become_gives_its_password_when_it_is_asked(tmp_path, with_users, method, password):
    inventory = with_users.inventory(**become(with_users, method, password))
    overlay = "-e ansible_user=keeper"
    (result,) = ask(tmp_path, inventory, *overlay.split(), command="id -u; echo $((40 + 2))").values()
    assert result["rc"] == 0, result
    assert result["stdout"].split() == ["0", "42"], "the prompt or the mark of success is in the output"


@pytest.mark.parametrize(
    ("password", "more", "words"),
    [
        ("wrong", {}, "become password is wrong"),
        (None, {}, "become password is required"),
        ("of keeper", {"ansible_become_exe": "sleep 1000 #"}, "logged in: yes; become did not let the command in"),
    ],
)
@pytest.mark.slow
def test_become_that_fails_or_hangs_is_told_in_its_time(tmp_path, with_users, password, more, words):
    inventory = with_users.inventory(**become(with_users, "sudo", password, **more))
    (result,) = ask(tmp_path, inventory, "-e", "ansible_user=keeper", command="id -u", timeout=6).values()
    assert words in result["msg"] and result["failed"] and result["seconds"] < 15, result
    assert not result["unreachable"]


@pytest.mark.slow
def test_a_host_over_another_connection_has_the_same_bound(tmp_path):
    mark = f"10{os.getpid()}"
    inventory = tmp_path / "hosts.json"
    local = {"ansible_connection": "local"}
    inventory.write_text(json.dumps({"all": {"hosts": {"quick": local, "hangs": {**local, "mine": 1}}}}))
    text = f"echo out; echo err >&2; [ ! -e {tmp_path}/hang ] || sleep {mark}; exit 4"
    quick = ask(tmp_path, inventory, command=text, hosts=["quick"])["quick"]
    assert (quick["rc"], quick["stdout"], quick["stderr"]) == (4, "out\n", "err\n")
    (tmp_path / "hang").touch()
    hangs = ask(tmp_path, inventory, command=text, hosts=["hangs"], timeout=2, connect_timeout=1)["hangs"]
    assert "did not answer within 3 s (logged in: unknown" in hangs["msg"]
    assert subprocess.run(["pgrep", "-f", f"sleep {mark}"], capture_output=True, check=False).stdout == b""


@pytest.mark.slow
def test_a_jump_host_of_the_inventory_is_used_and_one_that_hangs_ends_with_its_host(tmp_path, few):
    inventory = few.inventory()
    (good,), (noisy,) = few.of_kind("good"), few.of_kind("noisy")
    jump = few.variables[good]
    proxy = (
        f"ssh -F none -i {jump['ansible_ssh_private_key_file']} -o UserKnownHostsFile={few.folder}/known_hosts"
        f" -p {jump['ansible_port']} -W %h:%p root@{jump['ansible_host']}"
    )
    common = f"-F none -o UserKnownHostsFile={few.folder}/known_hosts -o ProxyCommand="
    options = ("-e", json.dumps({"ansible_ssh_common_args": f"{common}'{proxy}'"}))
    # The way leads through the jump host, as the target's own account of its peer says.
    found = ask(tmp_path, inventory, *options, command="echo $SSH_CONNECTION", hosts=[noisy])
    assert found[noisy]["rc"] == 0, found
    mark = f"11{os.getpid()}"
    options = ("-e", json.dumps({"ansible_ssh_common_args": f"{common}'sleep {mark}'"}))
    found = ask(tmp_path, inventory, *options, command="echo", hosts=[noisy], connect_timeout=3)
    assert "timed out during banner exchange" in found[noisy]["msg"] and found[noisy]["seconds"] < 5
    assert subprocess.run(["pgrep", "-f", f"sleep {mark}"], capture_output=True, check=False).stdout == b""


@pytest.mark.slow
def test_the_inventorys_key_exchange_wins_and_ours_is_left_out_where_it_is_refused(tmp_path, tmp_path_factory):
    old = "diffie-hellman-group14-sha1"
    fleet = sshhosts.Hosts(tmp_path_factory.mktemp("kex"), first=450)
    try:
        name = fleet.add("good", config=(f"KexAlgorithms {old}",))
        fleet.wait()
        inventory = fleet.inventory()
        without = ask(tmp_path, inventory, command="echo")[name]
        assert without["unreachable"] and "no matching key exchange" in without["msg"]
        arguments = "-e", json.dumps({"ansible_ssh_extra_args": f"-o KexAlgorithms=+{old}"})
        assert ask(tmp_path, inventory, *arguments, command="echo")[name]["rc"] == 0
        # Set only in a file of ssh's own, which a command line of ours would overrule.
        (fleet.folder / "ssh_config").write_text(f"Host *\n KexAlgorithms +{old}\n")
        common = f"-F {fleet.folder}/ssh_config -o UserKnownHostsFile={fleet.folder}/known_hosts"
        arguments = "-e", json.dumps({"ansible_ssh_common_args": common})
        assert ask(tmp_path, inventory, *arguments, command="echo")[name]["rc"] == 0
    finally:
        fleet.stop()


def test_a_server_that_is_too_busy_is_tried_again(tmp_path, tmp_path_factory):
    fleet = sshhosts.Hosts(tmp_path_factory.mktemp("busy"), first=460)
    try:
        name = fleet.add("good", config=("MaxStartups 2",))
        fleet.wait()
        for number in range(7):
            fleet.variables[f"also-{number}"] = fleet.variables[name]
        found = ask(tmp_path, fleet.inventory(ebpf_fleet_connect_timeout=30), command="echo fine")
        assert len(found) == 8 and [name for name, result in found.items() if result["failed"]] == [], found
    finally:
        fleet.stop()


def test_check_mode_asks_no_host(tmp_path, few):
    ran = play(tmp_path, "ebpf.fleet.rollback", few.inventory(), "-e", "scope=global", "--check", "--limit", "good-*")
    assert ran.rc != 0 and "run it without --check" in ran.text
    assert not few.inside(few.of_kind("good")[0], "sh", "-c", "ls /run/ebpf-fleet/kill.d 2>/dev/null || :")


def test_arguments_that_cannot_be_meant_are_refused(tmp_path, few):
    inventory = few.inventory()
    wrong = {"hosts": ["a text", "web, blue"], "empty": ["the list is empty", []]}
    for words, hosts in wrong.values():
        ran = play(tmp_path, str(write_play(tmp_path, {"command": "true", "hosts": hosts})), inventory)
        assert ran.rc != 0 and words in ran.text, ran.text
    ran = play(tmp_path, str(write_play(tmp_path, {"command": "true", "timeout": 0})), inventory)
    assert ran.rc != 0 and "a number from 1 to 3600" in ran.text


@pytest.mark.slow
def test_one_hosts_bad_variables_are_its_own_result(tmp_path, tmp_path_factory):
    with sshhosts.hosts(tmp_path_factory.mktemp("bad"), "good", first=420) as fleet:
        fleet.add("good", "undefined", ansible_host="{{ no_such_variable }}")
        fleet.add("good", "odd_time", ebpf_fleet_connect_timeout="soon")
        fleet.add("good", "odd_kind", ansible_connection="no_such_plugin")
        fleet.add("good", "hanging_lookup", ansible_port="{{ lookup('ansible.builtin.pipe', 'sleep 30; echo 22') }}")
        found = ask(tmp_path, fleet.inventory(), command="echo fine", hosts=[*fleet.names, "stranger"])
    assert [name for name, result in found.items() if not result["failed"]] == fleet.of_kind("good")[:1]
    assert "no_such_variable" in found["undefined"]["msg"]
    assert "EF_ARGUMENT: ebpf_fleet_connect_timeout" in found["odd_time"]["msg"]
    assert "no_such_plugin" in found["odd_kind"]["msg"]
    assert "took too long" in found["hanging_lookup"]["msg"]
    assert "EF_HOSTS: it is not in the inventory" in found["stranger"]["msg"]
