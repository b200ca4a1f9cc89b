# SPDX-License-Identifier: GPL-3.0-or-later
"""The loader keeps what it needs and no more, and acts on no one's word but root's and its own user's."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.requirements import ATTACH_KINDS

from tests.loader.bundles import Trust, canonical
from tests.loader.conftest import ROOT
from tests.loader.service import ROOMY_POLICY, Service, feature_of, make_service, wait_for
from tests.loader.test_lease import BOTH, grant, lease
from tests.loader.test_run import AS_THE_UNIT
from tools import privileges

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads BPF and gives files away: needs root")

SOURCES = ROOT / "bpf" / "loader"
CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 21, 38, 39
NET_ADMIN = 1 << 12
TWO = 1 << CAP_PERFMON | 1 << CAP_BPF
NOBODY = 65534
# A kernel before 5.8, as far as the loader can see.
BEFORE_CAP_BPF = 'mount --bind {} /proc/sys/kernel/cap_last_cap && exec "$@"'


@pytest.fixture
def service(loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path) -> Iterator[Service]:
    """A service with both features wanted; not started."""
    made = make_service(loader, tmp_path, trust, {name: feature_of(feature_objects, name) for name in BOTH})
    made.want(*BOTH)
    yield made
    if made.process is not None:
        made.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The loader's own privilege.c and seccomp.c with a main() of the tests."""
    binary = tmp_path_factory.mktemp("driver") / "driver"
    command = ["gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-DEF_SECCOMP", "-pthread"]
    files = [ROOT / "tests/loader/privilege_driver.c", SOURCES / "kernel/privilege.c", SOURCES / "kernel/seccomp.c"]
    # -iquote: the system's <seccomp.h> is not ours.
    command += ["-iquote", str(SOURCES), *map(str, files), "-o", str(binary), "-lbpf", "-ljansson", "-lseccomp"]
    subprocess.run(command, check=True)
    return binary


def said(driver: Path, *arguments: str) -> list[str]:
    done = subprocess.run([str(driver), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def kernel_says(pid: int) -> list[dict[str, str]]:
    """/proc/PID/task/*/status, one for each thread."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return [dict(re.findall(r"^(\w+):\s*(.*)$", text, re.M)) for text in texts]


# ---- capabilities ----


@pytest.mark.parametrize("last_cap", [39, 40, 41, 63])
def test_since_5_8_two_capabilities_are_kept(driver: Path, last_cap: int) -> None:
    assert said(driver, "keeps", str(last_cap)) == [str(CAP_PERFMON), str(CAP_BPF)]


@pytest.mark.parametrize("last_cap", [37, 38])
def test_before_5_8_it_is_cap_sys_admin(driver: Path, last_cap: int) -> None:
    assert said(driver, "keeps", str(last_cap)) == [str(CAP_SYS_ADMIN)]


def test_the_table_has_the_types_that_a_contract_may_ask_for_and_none_needs_the_network() -> None:
    table = (SOURCES / "kernel/privilege.c").read_text().partition("types[] = {")[2].partition("};")[0]
    assert set(re.findall(r'\{"(\w+)"', table)) == {kind.program_type for kind in ATTACH_KINDS}
    assert "CAP_NET_ADMIN" not in table


def give_to_the_unit(service: Service) -> None:
    """The folders as the unit's user has them."""
    service.state.mkdir()
    for folder in (service.state, service.log):
        os.chown(folder, NOBODY, NOBODY)
    for folder in [service.folder, *service.folder.parents]:
        if not os.stat(folder).st_mode & 0o001:
            folder.chmod(0o711)


@pytest.mark.parametrize("as_unit", [False, True], ids=["from root", "as the unit"])
def test_the_kernel_agrees_in_every_thread(service: Service, as_unit: bool) -> None:
    if as_unit:
        give_to_the_unit(service)
        service.prefix = AS_THE_UNIT
    status = service.start_settled()
    threads = kernel_says(service.pid)
    assert len(threads) == 2, "the loop and its guard"
    for thread in threads:
        for kind in ("CapEff", "CapPrm"):
            assert int(thread[kind], 16) == TWO
        assert int(thread["CapBnd"], 16) & ~TWO == 0 and int(thread["CapBnd"], 16) & NET_ADMIN == 0
        assert int(thread["CapInh"], 16) == int(thread["CapAmb"], 16) == 0
        assert (thread["NoNewPrivs"], thread["Seccomp"]) == ("1", "2")
    uid = NOBODY if as_unit else 0
    assert status["privileges"] == {"uid": uid, "capabilities": ["cap_perfmon", "cap_bpf"], "seccomp": True}
    assert {status["features"][name]["state"] for name in BOTH} == {"attached"}


def test_without_cap_bpf_cap_sys_admin_is_kept_and_said(service: Service) -> None:
    known = service.folder / "cap_last_cap"
    known.write_text("37\n")
    service.prefix = ("unshare", "--mount", "sh", "-c", BEFORE_CAP_BPF.format(known), "sh")
    status = service.start_settled()
    thread = kernel_says(service.pid)[0]
    assert int(thread["CapEff"], 16) == int(thread["CapPrm"], 16) == 1 << CAP_SYS_ADMIN
    assert status["privileges"]["capabilities"] == ["cap_sys_admin"]
    assert {status["features"][name]["state"] for name in BOTH} == {"attached"}
    assert "CAP_SYS_ADMIN is kept: this kernel is older than 5.8" in service.journal()
    start = json.loads((service.log / "audit.jsonl").read_text().splitlines()[0])
    assert start["event"] == "start" and "it keeps CAP_SYS_ADMIN" in start["reason"]


def test_a_kernel_that_does_not_say_is_given_no_more(service: Service) -> None:
    known = service.folder / "cap_last_cap"
    known.write_text("none of your business\n")
    service.prefix = ("unshare", "--mount", "sh", "-c", BEFORE_CAP_BPF.format(known), "sh")
    assert service.start_settled()["privileges"]["capabilities"] == ["cap_perfmon", "cap_bpf"]
    assert "CAP_SYS_ADMIN" not in service.journal()


# ---- system calls ----

REFUSED = {
    "execve", "execveat", "ptrace", "mount", "umount2", "init_module", "finit_module", "delete_module", "kexec_load",
    "reboot", "setns", "unshare", "chroot", "fork", "kill", "setuid", "capset", "prctl", "io_uring_setup",
    "process_vm_readv", "socket_inet", "socket_inet6", "socket_netlink", "socket_packet", "mmap_exec", "mprotect_exec",
    "ioctl_terminal", "bpf_pin", "bpf_attach", "bpf_others", "socket_inet_in_thread",
}  # fmt: skip
ALLOWED = {"install", "open", "socket_unix", "mmap", "write", "bpf_load", "thread"}


def test_the_filter_refuses_and_allows(driver: Path) -> None:
    """As root, to whom the kernel itself refuses none of these with EPERM."""
    answers = {name: int(number) for name, number in (line.split() for line in said(driver, "filter"))}
    assert set(answers) == REFUSED | ALLOWED
    assert {name for name in REFUSED if answers[name] != errno.EPERM} == set()
    assert {name for name in ALLOWED if answers[name] != 0} == set()


def test_a_bundle_is_read_under_the_filter(service: Service) -> None:
    (service.bundle.root / "manifest.json").write_bytes(b"{")
    service.start()
    assert service.process is not None and service.process.wait(timeout=20) == 3
    status = service.now()
    assert status["state"] == "refused" and status["privileges"]["seccomp"] is True


def refused_calls(trace: Path) -> list[str]:
    """Calls of any thread, once the filter stood, that ended with EPERM."""
    text = trace.read_text(errors="replace")
    assert "SECCOMP_SET_MODE_FILTER" in text
    lines = text.partition("SECCOMP_SET_MODE_FILTER")[2].splitlines()[1:]
    assert len(lines) > 100, "the loader was not watched"
    # What is loaded, and how much memory may be locked, the kernel itself may refuse; the filter lets both through.
    kernels_own = ("BPF_PROG_LOAD", "RLIMIT_MEMLOCK")
    return [line for line in lines if "EPERM" in line and not any(word in line for word in kernels_own)]


def wander(service: Service) -> None:
    """All that a loop may do: kill, release, another wish, a policy, a lease, a reload, events."""
    service.start_settled()
    service.order("feature.exec_events")
    service.wait_state("exec_events", "killed")
    (service.run / "kill.d/feature.exec_events").unlink()
    service.wait_state("exec_events", "attached")
    grant(service, 600)
    service.allow({**ROOMY_POLICY, "features": {"exec_events": {"cpu_millicores": 999}}})
    service.want("exec_events", exec_events=2)
    wait_for(lambda: service.now()["lease"], "the lease is seen")
    service.send(signal.SIGHUP)
    for _ in range(700):
        subprocess.run(["/bin/true"], check=True)
    wait_for(lambda: service.feature("exec_events")["counters"]["produced"] > 300, "events")
    service.fresh_status()
    assert service.stop() == 0


SINKS: dict[str, dict[str, Any]] = {
    "rotated files": {"kind": "jsonl", "file_bytes": 65536, "files": 2},
    "the journal": {"kind": "journal"},
    "a socket that is not there": {"kind": "datagram", "path": "/run/nobody-listens"},
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("sink", SINKS)
def test_nothing_that_the_loop_does_is_refused(
    loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path, sink: str
) -> None:
    """Ring and perf buffer, raw tracepoint, tp_btf, fentry where there is any, and kprobe, under each sink."""
    features = {
        "exec_events": feature_of(feature_objects, "exec_events", ("perf",)),
        "exec_policy": feature_of(feature_objects, "exec_policy", ("kprobe",)),
        "file_unlinks": feature_of(feature_objects, "file_unlinks"),
        "runqlat": feature_of(feature_objects, "runqlat"),
    }
    made = make_service(loader, tmp_path, trust, features)
    made.allow({**ROOMY_POLICY, "sink": SINKS[sink]})
    made.want(*features)
    trace = tmp_path / "trace"
    made.prefix = ("strace", "-D", "-f", "-qq", "-o", str(trace))
    made.environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    try:
        wander(made)
    finally:
        made.stop(signal.SIGKILL)
    assert refused_calls(trace) == []


def test_it_works_within_the_units_filter_too(service: Service) -> None:
    """As the unit starts it: its user, its three capabilities, its SystemCallFilter=; ours goes on top."""
    calls = privileges.unit_calls()
    if calls is None:
        pytest.skip("systemd-analyze is not here: the unit's sets of system calls cannot be told")
    give_to_the_unit(service)
    three = "-all,+bpf,+perfmon,+sys_admin"
    service.prefix = (
        *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", f"--inh-caps={three}"),
        *(f"--ambient-caps={three}", f"--bounding-set={three}", "--no-new-privs"),
        *(sys.executable, str(Path(__file__).with_name("under_filter.py")), ",".join(sorted(calls))),
    )
    status = service.start_settled()
    assert {status["features"][name]["state"] for name in BOTH} == {"attached"}
    assert status["privileges"] == {"uid": NOBODY, "capabilities": ["cap_perfmon", "cap_bpf"], "seccomp": True}
    assert status["stats_enabled"], "before CAP_SYS_ADMIN was given up"
    assert kernel_says(service.pid)[0].get("Seccomp_filters", "2") == "2"
    service.order("global")
    service.wait_state("runqlat", "killed")
    assert "cannot" not in service.journal() and service.stop() == 0


@pytest.mark.slow
def test_a_build_for_sanitizers_has_no_filter_and_says_so(service: Service, tmp_path: Path) -> None:
    build = ["make", "-s", "-C", str(ROOT / "bpf"), "dynamic", f"BUILD={tmp_path / 'build'}"]
    subprocess.run(build, check=True, capture_output=True)
    service.binary = tmp_path / "build/loader-dynamic/ebpf-loader"
    status = service.start_settled()
    assert status["privileges"]["seccomp"] is False
    assert kernel_says(service.pid)[0]["Seccomp"] == "0"
    assert "no system call filter of its own" in service.journal()


# ---- on whose word ----


def spoil_mode(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o020)


def spoil_owner(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)


SPOILS: dict[str, tuple[Callable[[Path], None], str]] = {
    "mode": (spoil_mode, "chmod go-w"),
    "owner": (spoil_owner, f"belongs to user {NOBODY}"),
}
AT_START = {
    "desired.json": ("desired_error", "EF_DESIRED_MALFORMED"),
    "policy.json": ("policy_error", "EF_HOST_POLICY_MALFORMED"),
}


def assert_says(text: str, path: Path, words: str) -> None:
    assert f"{path}: " in text and words in text and ("chmod go-w" in text or "chown root" in text), text


@pytest.mark.parametrize("how", SPOILS)
@pytest.mark.parametrize("where", ["desired.json", "policy.json", "."])
def test_what_others_can_write_lets_nothing_run_at_start(service: Service, where: str, how: str) -> None:
    spoil, words = SPOILS[how]
    path = service.etc / where
    spoil(path)
    status = service.start_settled()
    field, code = AT_START.get(where, AT_START["desired.json"])
    assert (status["state"], status["features"]["runqlat"]["reason_code"]) == ("idle", code)
    assert_says(status[field], path, words)
    assert_says(service.journal(), path, words)


@pytest.mark.parametrize("how", SPOILS)
@pytest.mark.parametrize("where", AT_START)
def test_what_others_can_write_changes_nothing_while_it_runs(service: Service, where: str, how: str) -> None:
    service.start_settled()
    spoil, words = SPOILS[how]
    path = service.etc / where
    spoil(path)
    service.send(signal.SIGHUP)
    error = wait_for(lambda: service.now()[AT_START[where][0]], "it is said")
    assert_says(error, path, words)
    assert {service.feature(name)["state"] for name in BOTH} == {"attached"}
    os.chown(path, 0, 0)
    path.chmod(0o644)
    wait_for(lambda: service.now()[AT_START[where][0]] is None, "and its end")


def link_to_a_release(service: Service) -> Path:
    """desired.json as a release has it: ETC/desired.json, current, releases/ID; returns that folder."""
    release = service.folder / "lib/releases/1.0.0-aaaaaaaaaaaa"
    release.mkdir(parents=True)
    (service.etc / "desired.json").rename(release / "desired.json")
    (service.folder / "lib/current").symlink_to(Path("releases") / release.name)
    (service.etc / "desired.json").symlink_to(service.folder / "lib/current/desired.json")
    return release


@pytest.mark.parametrize("what", ["nothing", "the link's folder", "the release's folder", "the file"])
def test_a_link_is_followed_and_both_its_ends_are_looked_at(service: Service, what: str) -> None:
    release = link_to_a_release(service)
    paths = {"the link's folder": service.etc, "the release's folder": release, "the file": release / "desired.json"}
    if what in paths:
        spoil_mode(paths[what])
    status = service.start_settled()
    if what == "nothing":
        assert status["state"] == "running" and status["desired_error"] is None
        return
    assert status["state"] == "idle"
    assert_says(status["desired_error"], paths[what], "others can write to it")


def test_a_sticky_folder_is_safe(service: Service) -> None:
    service.etc.chmod(0o1777)
    assert service.start_settled()["state"] == "running"


@pytest.mark.parametrize("how", SPOILS)
def test_a_lease_that_others_can_write_is_expired(service: Service, how: str) -> None:
    spoil, words = SPOILS[how]
    path = grant(service, 600)
    spoil(path)
    status = service.start_settled()
    assert (status["state"], status["reason_code"]) == ("idle", "EF_LEASE_EXPIRED")
    assert status["lease"]["expired"] is True
    assert_says(status["reason"], path, words)
    os.chown(path, 0, 0)
    path.write_bytes(canonical(lease(service, 600)))
    path.chmod(0o644)
    for name in BOTH:
        service.wait_state(name, "attached")


@pytest.mark.parametrize("how", SPOILS)
def test_a_bundle_in_a_folder_that_others_can_write_is_refused(service: Service, how: str) -> None:
    spoil, words = SPOILS[how]
    spoil(service.bundle.root)
    service.start()
    assert service.process is not None and service.process.wait(timeout=20) == 3
    status = service.now()
    assert (status["state"], status["reason_code"]) == ("refused", "EF_PATH_UNSAFE")
    assert_says(status["reason"], service.bundle.root, words)
    records = [json.loads(line) for line in (service.log / "audit.jsonl").read_text().splitlines()]
    assert [each["reason_code"] for each in records if each["event"] == "refuse"] == ["EF_PATH_UNSAFE"]


@pytest.mark.parametrize("where", ["etc", "run"])
def test_an_order_in_a_folder_that_others_can_write_is_obeyed_and_said(service: Service, where: str) -> None:
    service.start_settled()
    folder = (service.etc if where == "etc" else service.run) / "kill.d"
    folder.mkdir()
    folder.chmod(0o777)
    path = service.order("global", where)
    os.chown(path, NOBODY, NOBODY)
    for name in BOTH:
        service.wait_state(name, "killed")
    wait_for(lambda: f"kill order {path} is obeyed, whoever gave it" in service.journal(), "it is said")
    assert f"{folder}: others can write to it (mode 0777)" in service.journal()
