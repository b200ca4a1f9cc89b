# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command and query of the runbooks, run on what the real loader recorded: it finds what the page says.

What a page names and no entry of these tables checks fails. Commands for systemd and for Ansible run in tests/host.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.loader.prometheus import check_metrics
from tests.loader.runbook_world import (
    EARLY,
    FEW,
    MANY,
    NAMES,
    TEMPORARY,
    World,
    deaf_peer,
    full_queue,
    made_world,
    start_in_temporary_folders,
)
from tests.loader.service import wait_for
from tests.loader.test_runbooks_floods import FLOODS
from tests.support.runbooks import Typed, asks_systemd, typed

EVENTS = "$(ls -tr /var/log/ebpf-fleet/events.jsonl*)"
METRICS = "/run/ebpf-fleet-loader/metrics.prom"
STATUS = "/run/ebpf-fleet-loader/status.json"
Check = Callable[[World, str], None]
CHECKS: dict[str, Check] = {}


@pytest.fixture(scope="module")
def world(
    loader: Path, feature_objects: Path, signing_key: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    with made_world(loader, feature_objects, tmp_path_factory.mktemp("world"), signing_key) as made:
        yield made


def check(*texts: str) -> Callable[[Check], Check]:
    """The function checks these commands."""

    def note(function: Check) -> Check:
        for text in texts:
            assert text not in CHECKS, text
            CHECKS[text] = function
        return function

    return note


def needs(program: str) -> None:
    if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        pytest.skip(f"{program} is not installed on this machine")


# ---- searches of records ----


TEMPORARY_SEARCH = f"""grep -hE '"filename": *"(/tmp|/var/tmp|/dev/shm)/' {EVENTS} | tail -n 20"""


@check(TEMPORARY_SEARCH)
def finds_what_ran_from_temporary_folders(world: World, text: str) -> None:
    def told() -> dict[int, str] | None:
        """Where others start programs of these folders as well, only the last ones are told: so these are the last."""
        start_in_temporary_folders(world)
        told = {each["pid"]: each["filename"] for each in world.records(text)}
        return told if {world.started[folder] for folder in TEMPORARY} <= set(told) else None

    found = wait_for(told, "the search finds what has just run")
    for folder in TEMPORARY:
        assert found[world.started[folder]].startswith(f"{folder}/ef_run_"), found
    assert world.started["/bin/true"] not in found
    fields = set(world.records(text)[0])
    assert {"pid", "ppid", "uid", "comm", "filename"} <= fields


@check(f"""grep -hE '"event": *"exec",.*"pid": *PPID[,}}]' {EVENTS} | tail -n 3""")
def finds_the_parent_and_no_longer_number(world: World, text: str) -> None:
    pid = world.started["/bin/true"]
    assert [each["pid"] for each in world.records(text, PPID=pid)] == [pid]
    assert world.records(text, PPID=pid // 10) == [each for each in world.service.events() if each["pid"] == pid // 10]


@check(f"""grep -hE '"event": *"exec",.*"pid": *PID[,}}]' {EVENTS} | tail -n 1""")
def finds_who_a_pid_was(world: World, text: str) -> None:
    pid = world.started[TEMPORARY[0]]
    (found,) = world.records(text, PID=pid)
    assert found["pid"] == pid and found["filename"].startswith(TEMPORARY[0])


@check(f"""grep -hE '"event": *"exec",.*"uid": *UID[,}}]' {EVENTS} | tail -n 20""")
def finds_what_a_user_started_and_of_no_other(world: World, text: str) -> None:
    assert str(MANY).startswith(str(FEW))
    for uid in (FEW, MANY, EARLY):
        found = world.records(text, UID=uid)
        assert [(each["uid"], each["pid"]) for each in found] == [(uid, world.started[str(uid)])]
    assert not world.records(text, UID=FEW // 10)


@check(f"""grep -hE '"event": *"exec_would_deny"' {EVENTS} | tail -n 3""")
def finds_files_without_a_name(world: World, text: str) -> None:
    found = world.records(text)
    assert [each["name"] for each in found[-2:]] == world.did["exec_policy"]["names"]
    assert {each["feature"] for each in found} == {"exec_policy"}
    assert all(each["filename"].startswith("/dev/fd/") and each["comm"] and each["pid"] for each in found), found


@check(f"""grep -hE '"event": *"oom_kill"' {EVENTS} | tail -n 3""")
def finds_the_victim(world: World, text: str) -> None:
    if not world.oom:
        pytest.skip("this machine has no memory controller to run out of")
    last = world.records(text)[-1]
    assert (last["pid"], last["comm"]) == (world.oom["pid"], world.oom["comm"]) and world.oom["killed"]
    assert (last["memcg"], last["cgroup_id"]) == (1, world.oom["cgroup_id"])
    assert last["total_pages"] == world.oom["limit_pages"] and {"trigger_pid", "points"} <= set(last)


@check(f"""grep -hE '"event": *"oom_kill".*"comm": *"ebpf-loader"' {EVENTS}""")
def finds_no_loader_that_was_not_killed(world: World, text: str) -> None:
    assert world.run(text).stdout == ""
    victim = text.replace("ebpf-loader", world.oom.get("comm", "none"))
    assert not world.oom or json.loads(world.lines(victim)[-1])["pid"] == world.oom["pid"]


@check(f"head -qn 1 {EVENTS} | head -n 1")
def shows_the_oldest_record(world: World, text: str) -> None:
    files = sorted(world.service.log.glob("events.jsonl*"), key=lambda path: path.stat().st_mtime)
    assert len(files) > 1, "the records are in more than one file"
    (found,) = world.records(text)
    assert found["time"] == min(json.loads(path.read_text().split("\n")[0])["time"] for path in files)


KEEP = "mkdir -p /root/evidence && cp -p /var/log/ebpf-fleet/events.jsonl*"


@check(f"{KEEP} /root/evidence/", f"{KEEP} /var/log/ebpf-fleet/audit.jsonl* /root/evidence/")
def keeps_the_records_with_their_times(world: World, text: str) -> None:
    keep = world.service.folder / "evidence"
    shutil.rmtree(keep, ignore_errors=True)
    world.lines(text.replace("/root/evidence", str(keep)))
    old = world.service.log / "events.jsonl.1"
    assert (keep / old.name).read_bytes() == old.read_bytes()
    assert (keep / old.name).stat().st_mtime_ns == old.stat().st_mtime_ns
    assert (keep / "audit.jsonl").exists() == ("audit" in text)


# ---- metrics and status on the host ----


@check(f"""grep -F 'ebpf_fleet_feature_profile{{feature="exec_events",profile="full"}} 1' {METRICS}""",
       f"""grep -F 'ebpf_fleet_feature_state{{feature="exec_policy",state="attached"}} 1' {METRICS}""")  # fmt: skip
def shows_that_the_feature_runs(world: World, text: str) -> None:
    assert len(world.lines(text)) == 1
    assert world.run(text.replace("exec_", "absent_")).stdout == ""


@check(f"""grep -E '^ebpf_fleet_map_(max_)?entries\\{{feature="runqlat"' {METRICS}""")
def shows_how_full_the_maps_are(world: World, text: str) -> None:
    found = world.lines(text)
    assert [line.split("{")[0] for line in found if "ef_rql_start" in line] == [
        "ebpf_fleet_map_entries",
        "ebpf_fleet_map_max_entries",
    ]


@check(f"""grep -E '^ebpf_fleet_(consumer_lag_bytes|backpressure_active)\\{{feature="exec_events"' {METRICS}""")
def shows_the_readers_lag(world: World, text: str) -> None:
    found = world.lines(text)
    assert sorted(line.split("{")[0] for line in found) == [
        "ebpf_fleet_backpressure_active",
        "ebpf_fleet_consumer_lag_bytes",
    ]


@check(f"jq '.features.exec_events.consumer' {STATUS}")
def shows_the_consumer(world: World, text: str) -> None:
    needs("jq")
    assert json.loads("".join(world.lines(text)))["unwritten"] == 0


@check(f"jq '.shipping' {STATUS}")
def shows_how_far_the_shipper_is(world: World, text: str) -> None:
    needs("jq")
    found = json.loads("".join(world.lines(text)))
    assert found["cursor_segment"] == 1 < found["segment"] and found["unshipped_bytes"] > 65536 // 2


@check(f"jq -r '.features.tcp_retransmits.variant' {STATUS}")
def shows_the_variant(world: World, text: str) -> None:
    needs("jq")
    assert world.lines(text) == [world.service.feature("tcp_retransmits")["variant"]]


@check(f"cat {STATUS}")
def shows_state_and_reasons(world: World, text: str) -> None:
    found = json.loads("".join(world.lines(text)))
    assert found["state"] == "running" and all(each["reason"] for each in found["features"].values())


@check("df /run /var/log", "df /var/log/ebpf-fleet", "cat /proc/diskstats", "cat /proc/pressure/io",
       "cat /proc/pressure/cpu", "ip -s link", "top -H -b -n 1 | head -n 20", "iostat -x 1 3",
       "ps -eo pid,rss,comm --sort -rss | head")  # fmt: skip
def shows_the_host(world: World, text: str) -> None:
    needs(text.split()[0])
    if text.startswith("cat ") and not Path(text.split()[1]).exists():
        pytest.skip(f"this kernel has no {text.split()[1]}")
    assert world.lines(text)


# ---- processes, groups and connections ----


@check("find /sys/fs/cgroup -inum CGROUP_ID")
def finds_the_group_of_a_record(world: World, text: str) -> None:
    if not world.oom:
        pytest.skip("this machine has no memory controller to run out of")
    assert str(world.oom["group"]) in world.lines(text, CGROUP_ID=world.oom["cgroup_id"])


@check("getent passwd UID")
def names_the_user(world: World, text: str) -> None:
    assert world.lines(text, UID=0)[0].startswith("root:")


@check("ps -u UID -o pid,etime,args")
def shows_what_a_user_runs(world: World, text: str) -> None:
    child = subprocess.Popen(["sleep", "60"], user=MANY)
    try:
        rows = [line.split() for line in world.lines(text, UID=MANY)[1:]]
        assert [(row[0], row[2:]) for row in rows] == [(str(child.pid), ["sleep", "60"])]
    finally:
        child.kill()
        child.wait()


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "T"


@check("ls -l /proc/PID/exe", "cp /proc/PID/exe /root/evidence-PID", "cat /proc/PID/maps > /root/evidence-PID.maps",
       r"tr '\0' ' ' < /proc/PID/cmdline", "kill -STOP PID", "timeout 5 strace -fc -p PID")  # fmt: skip
def looks_at_a_program_whose_file_is_gone(world: World, text: str) -> None:
    needs(text.replace("timeout 5 ", "").split()[0])
    program = Path(shutil.copy("/bin/sleep", world.service.folder / "gone"))
    child = subprocess.Popen([str(program), "60"])
    program.unlink()
    try:
        here = text.replace("/root/", f"{world.service.folder}/")
        done = world.run(here, PID=child.pid)
        kept = world.service.folder / f"evidence-{child.pid}"
        assert {
            "ls": lambda: done.stdout.rstrip().endswith("(deleted)"),
            "cp": lambda: kept.read_bytes() == Path("/bin/sleep").read_bytes(),
            "cat": lambda: "gone (deleted)" in kept.with_suffix(".maps").read_text(),
            "tr": lambda: done.stdout.strip() == f"{program} 60",
            "kill": lambda: wait_for(lambda: is_stopped(child.pid), "it is stopped"),
            "timeout": lambda: "attached" in done.stderr,
        }[text.split()[0]](), done
    finally:
        child.kill()
        child.wait()


@check("ss -tn state syn-sent", "nstat -az TcpExtListenOverflows TcpExtListenDrops")
def shows_a_peer_whose_queue_is_full(world: World, text: str) -> None:
    with full_queue() as port:
        deadline = time.monotonic() + 10
        while True:
            found = " ".join(world.lines(text)[1:])
            if f":{port}" in found or re.search(r"Overflows +[1-9].*Drops +[1-9]", found):
                return
            assert time.monotonic() < deadline, found


@check("ss -ti state established | grep -B1 retrans")
def shows_a_peer_that_loses_what_is_sent(world: World, text: str) -> None:
    with deaf_peer() as port:
        deadline = time.monotonic() + 20
        while f":{port}" not in (found := world.run(text).stdout):
            assert time.monotonic() < deadline, found


@check("nstat -az TcpRetransSegs TcpExtTCPTimeouts TcpOutSegs")
def shows_how_much_is_sent_again(world: World, text: str) -> None:
    found = {line.split()[0]: float(line.split()[1]) for line in world.lines(text)[1:]}
    assert set(found) == {"TcpRetransSegs", "TcpExtTCPTimeouts", "TcpOutSegs"}


@check("dmesg | grep -iE 'I/O error|reset|timeout'", "dmesg | grep -A1 oom-kill")
def finds_what_the_kernel_said(world: World, text: str) -> None:
    if subprocess.run(["dmesg"], check=False, capture_output=True).returncode:
        pytest.skip("this machine's root may not read the kernel's log")
    if "oom-kill" not in text:
        Path("/dev/kmsg").write_text("ebpf-fleet test: I/O error, dev none\n")
    elif not world.oom:
        pytest.skip("this machine has no memory controller to run out of")
    wanted = f"pid={world.oom['pid']}," if "oom-kill" in text else "I/O error, dev none"
    assert wanted in "\n".join(world.lines(text))


@check("python3 -c 'import errno; print(errno.errorcode[NUMBER])'")
def names_the_error(world: World, text: str) -> None:
    _call, error, _compat = world.did["syscall_errors"]["key"].split(",")
    assert world.lines(text, NUMBER=error) == ["ESRCH"]


@check("grep -w NUMBER /usr/include/x86_64-linux-gnu/asm/unistd_64.h")
def names_the_call(world: World, text: str) -> None:
    if not Path(text.split()[-1]).exists():
        pytest.skip("this machine has no headers of the kernel for x86-64")
    assert world.lines(text, NUMBER=world.did["syscall_errors"]["key"].split(",")[0]) == ["#define __NR_getpgid 121"]


# ---- the figure for the alert ----

CONVERTER = next(each.text for each in typed("shell") if each.text.startswith("records="))


def last_before_and_after(world: World, text: str) -> str | None:
    """The time of the last record that there was before and after the command ran."""
    before = world.records(TEMPORARY_SEARCH)[-1]["time"]
    world.lines(text)
    return str(before) if world.records(TEMPORARY_SEARCH)[-1]["time"] == before else None


@check(CONVERTER)
def writes_when_the_last_program_was_started_from_there(world: World, text: str) -> None:
    written = world.service.folder / "textfile" / "ebpf_fleet_exec.prom"
    name = "ebpf_fleet_exec_from_temporary_folder_timestamp_seconds"
    # Others may start such programs meanwhile on this machine: until none was.
    last = wait_for(lambda: last_before_and_after(world, text), "it is quiet in the temporary folders")
    assert check_metrics(written.read_text()) == ""
    known = subprocess.run(["date", "-d", last, "+%s"], check=True, capture_output=True, text=True).stdout
    assert written.read_text().splitlines()[-1] == f"{name} {known.strip()}"
    world.lines(text.replace("(/tmp|", "(/no-such|").replace("/var/tmp|", "").replace("/dev/shm", "/none"))
    assert written.read_text().splitlines()[-1] == f"{name} 0", "there are records, and none of that kind"
    written.unlink()
    done = world.run(text.replace("/var/log/ebpf-fleet/events.jsonl", "/no-such-file"))
    assert done.returncode and not written.exists(), "no records is no figure"
    world.lines(text)


@check("ls -l /var/lib/prometheus/node-exporter/ebpf_fleet_exec.prom")
def shows_when_the_figure_was_written(world: World, text: str) -> None:
    world.lines(CONVERTER)
    assert len(world.lines(text)) == 1


# ---- the tables ----

SHELL = [each for each in typed("shell") if not asks_systemd(each.text)]


@pytest.mark.parametrize(
    "command", [each for each in SHELL if each.text not in FLOODS], ids=lambda one: f"{one.page}: {one.text}"[:90]
)
def test_a_command_of_a_runbook_finds_what_the_page_says(world: World, command: Typed) -> None:
    assert command.text in CHECKS, "no check for this command of a runbook: write one above"
    CHECKS[command.text](world, command.text)


def test_no_check_is_of_a_command_that_no_page_has() -> None:
    assert set(CHECKS) | set(FLOODS) == {each.text for each in SHELL}


# ---- queries ----

# The labels that the first answer has, and the least that its figure is.
QUERIES: dict[str, tuple[dict[str, str], float]] = {
    "ebpf_fleet_block_io_latency_seconds_bucket": ({}, 1e-9),
    "rate(ebpf_fleet_file_unlinks_total": ({"uid": "54321"}, 1e-9),
    "ebpf_fleet_run_queue_latency_seconds_bucket": ({}, 1e-9),
    "sum(rate(ebpf_fleet_program_run_seconds_total": ({}, 1e-9),
    "rate(ebpf_fleet_syscall_errors_total": ({"error": "2"}, 1e-9),
    "ebpf_fleet_tcp_connect_latency_seconds_bucket": ({}, 1e-9),
    "ebpf_fleet_map_entries{": ({"map": "ef_tcl_start"}, 0),
    "rate(ebpf_fleet_tcp_connect_failures_total": ({"error": "111"}, 1e-9),
    "rate(ebpf_fleet_tcp_retransmits_total": ({"state": "1"}, 1e-9),
    "ebpf_fleet_feature_profile{": ({"profile": "reduced"}, 1),
    "rate(ebpf_fleet_loader_cpu_seconds_total": ({}, 1e-9),
    "rate(ebpf_fleet_events_dropped_total": ({}, 0),
    "increase(ebpf_fleet_events_unshipped_deleted_bytes_total": ({}, 0),
}


def test_an_answer_is_known_for_every_query() -> None:
    assert [each.text for each in typed("query") if not any(key in each.text for key in QUERIES)] == []


@pytest.mark.parametrize("query", typed("query"), ids=lambda one: f"{one.page}: {one.text}"[:90])
def test_a_query_of_a_runbook_finds_what_the_page_says(world: World, query: Typed) -> None:
    wanted = [value for key, value in QUERIES.items() if key in query.text]
    assert wanted, "no answer is known for this query of a runbook: write it above"
    labels, least = wanted[0]
    found = world.metrics.ask(query.text.replace("HOST", world.metrics.instance))
    fitting = [each for each in found if labels.items() <= each["metric"].items()]
    assert fitting and max(each["value"] for each in fitting) >= least, found
    other = world.metrics.ask(query.text.replace("HOST", "another:1"))
    assert not other, "only of the host that was asked for"


def test_a_query_by_feature_answers_for_every_feature(world: World) -> None:
    (query,) = [each.text for each in typed("query") if "dropped_total{instance" in each.text]
    found = world.metrics.ask(query.replace("HOST", world.metrics.instance))
    assert {each["metric"]["feature"] for each in found} == set(NAMES)
