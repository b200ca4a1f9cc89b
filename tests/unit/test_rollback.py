# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back to the previous release: the script, run for real in a folder, and the summary."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import answer as kill_answer
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import rollback

from tests.integration.killplace import cgroup2, remove_group

# A stand-in for systemctl is on PATH only here: this machine has no systemd,
# and the real one is used on the test fleet. It does what a start does to
# the file that the script waits for.
SYSTEMCTL = """#!/bin/sh
echo "$*" >>"$CALLS"
[ "$1" = start ] || exit 0
[ -n "${LOADER_SILENT:-}" ] && exit 0
digest=$(sha256sum <"$HOST/var/lib/ebpf-fleet/current/bundle/manifest.json" | cut -c1-64)
printf '{"bundle": {"digest": "%s"}}' "$digest" >"$HOST/run/ebpf-fleet-loader/status.json"
"""


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host's folders with two releases, of which `new` is current."""
    releases = tmp_path / "var/lib/ebpf-fleet/releases"
    for name in ("old", "new"):
        (releases / name / "bundle").mkdir(parents=True)
        (releases / name / "bundle/manifest.json").write_text(json.dumps({"name": name}))
    (tmp_path / "run/ebpf-fleet-loader").mkdir(parents=True)
    os.symlink("releases/new", releases.parent / "current")
    os.symlink("releases/old", releases.parent / "previous")
    stand_in = tmp_path / "bin/systemctl"
    stand_in.parent.mkdir()
    stand_in.write_text(SYSTEMCTL)
    stand_in.chmod(0o755)
    return tmp_path


def digest(host: Path, name: str) -> str:
    return hashlib.sha256((host / f"var/lib/ebpf-fleet/releases/{name}/bundle/manifest.json").read_bytes()).hexdigest()


def run(
    host: Path,
    from_digest: str | None = None,
    shell: str = "sh",
    lock_seconds: int = 5,
    trust_only: bool = False,
    **more: str,
) -> dict:
    script = rollback.render_rollback(
        from_digest, wait_seconds=1, lock_seconds=lock_seconds, stop_seconds=2, root=str(host), trust_only=trust_only
    )
    env = {**os.environ, "PATH": f"{host / 'bin'}:{os.environ['PATH']}", "HOST": str(host),
           "CALLS": str(host / "calls"), **more}  # fmt: skip
    done = subprocess.run([*shell.split(), "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == (0 if '"ok":true' in done.stdout else 1), done.stdout
    return kill_answer.parse_answer({"stdout": done.stdout, "stderr": done.stderr, "rc": done.returncode})


def current(host: Path) -> str | None:
    link = host / "var/lib/ebpf-fleet/current"
    return os.readlink(link) if link.is_symlink() else None


@pytest.mark.parametrize("shell", ["sh", "bash", "busybox sh"])
def test_goes_back_to_the_previous_release(host, shell):
    answer = run(host, shell=shell)
    assert answer["ok"] and answer["changed"], answer
    assert current(host) == "releases/old"
    assert not (host / "var/lib/ebpf-fleet/previous").is_symlink()
    assert answer["digest"] == digest(host, "old")


def test_leaves_a_host_alone_on_which_another_release_is_active(host):
    answer = run(host, "0" * 64)
    assert answer["ok"] and not answer["changed"], answer
    assert current(host) == "releases/new"
    assert not (host / "calls").exists()


def lease_of(host: Path, digest: str) -> Path:
    path = host / "etc/ebpf-fleet/lease.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"bundle_digest": digest}))
    return path


@pytest.mark.parametrize("active", [True, False])
def test_the_lease_of_a_release_that_never_became_active_ends_and_that_of_another_stays(host, active):
    """A release run writes it first, and may die before it activates anything."""
    if not active:
        (host / "var/lib/ebpf-fleet/current").unlink()
    lease = lease_of(host, "a" * 64)
    answer = run(host, "b" * 64)
    assert answer["ok"] and not answer["changed"] and lease.exists(), answer
    answer = run(host, "a" * 64)
    assert answer["ok"] and answer["changed"] and not lease.exists(), answer
    assert current(host) == ("releases/new" if active else None)
    answer = run(host, "a" * 64)
    assert answer["ok"] and not answer["changed"], answer


def test_a_probation_ends_with_the_release_that_was_on_it(host):
    lease = lease_of(host, digest(host, "new"))
    assert run(host, digest(host, "new"))["changed"] and not lease.exists()
    other = lease_of(host, "c" * 64)
    (host / "var/lib/ebpf-fleet/current").unlink()
    os.symlink("releases/new", host / "var/lib/ebpf-fleet/current")
    assert run(host, digest(host, "new"))["changed"] and other.exists()


def test_a_second_run_for_the_same_release_changes_nothing(host):
    new = digest(host, "new")
    assert run(host, new)["changed"]
    answer = run(host, new)
    assert answer["ok"] and not answer["changed"], answer
    assert current(host) == "releases/old"


def test_a_first_release_that_failed_leaves_nothing_running(host):
    (host / "var/lib/ebpf-fleet/previous").unlink()
    answer = run(host, digest(host, "new"))
    assert answer["ok"] and answer["changed"], answer
    assert current(host) is None
    assert "stop --no-block ebpf-fleet-loader.service" in (host / "calls").read_text()


def test_without_a_previous_release_a_plain_order_fails_and_changes_nothing(host):
    (host / "var/lib/ebpf-fleet/previous").unlink()
    answer = run(host)
    assert not answer["ok"] and "no previous release" in answer["detail"]
    assert current(host) == "releases/new"


def test_a_loader_that_does_not_confirm_is_not_a_yes(host):
    answer = run(host, LOADER_SILENT="1")
    assert not answer["ok"] and "did not confirm" in answer["detail"]


def test_a_release_that_cannot_be_read_is_no_other_release(host):
    new = digest(host, "new")
    (host / "var/lib/ebpf-fleet/releases/new/bundle/manifest.json").unlink()
    answer = run(host, new)
    assert not answer["ok"] and "cannot be read" in answer["detail"]
    assert current(host) == "releases/new"


def test_a_previous_that_names_the_current_release_is_none(host):
    link = host / "var/lib/ebpf-fleet/previous"
    link.unlink()
    link.symlink_to("releases/new")
    answer = run(host)
    assert not answer["ok"] and "none to go back to" in answer["detail"]
    assert not (host / "calls").exists()


def hold_lock(host: Path) -> int:
    lock = os.open(host / "var/lib/ebpf-fleet/.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def test_a_release_run_that_outlived_its_connection_is_awaited(host):
    """The module activates `new` only after the order to leave it came in."""
    base = host / "var/lib/ebpf-fleet"
    lock = hold_lock(host)
    (base / "current").unlink()
    (base / "current").symlink_to("releases/old")

    def activate() -> None:
        time.sleep(1.2)
        (base / "current").unlink()
        (base / "current").symlink_to("releases/new")
        os.close(lock)

    module = threading.Thread(target=activate)
    module.start()
    try:
        answer = run(host, digest(host, "new"))
    finally:
        module.join()
    assert answer["ok"] and answer["changed"], answer
    assert current(host) == "releases/old"


def test_a_release_run_that_does_not_end_is_not_a_yes(host):
    lock = hold_lock(host)
    try:
        answer = run(host, digest(host, "new"), lock_seconds=1)
    finally:
        os.close(lock)
    assert not answer["ok"] and "still works" in answer["detail"]
    assert current(host) == "releases/new"


def put_fifo(path: Path) -> None:
    os.mkfifo(path)


def put_endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def put_folder(path: Path) -> None:
    path.mkdir()


def put_sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


STATUS_TRAPS = [put_fifo, put_endless, put_folder, put_sparse]


@pytest.mark.parametrize("trap", STATUS_TRAPS)
@pytest.mark.parametrize("shell", ["sh", "bash", "busybox sh"])
def test_a_status_that_is_a_trap_does_not_hold_up_the_way_back(host: Path, trap, shell: str) -> None:
    """The loader's user put it there; it is not the word of the next loader either."""
    trap(host / "run/ebpf-fleet-loader/status.json")
    answer = run(host, shell=shell)
    assert answer["ok"] and current(host) == "releases/old", answer


def test_a_status_that_becomes_a_trap_is_not_a_yes_and_holds_nothing_up(host: Path) -> None:
    (host / "bin/systemctl").write_text(
        '#!/bin/sh\n[ "$1" = start ] || exit 0\nmkfifo "$HOST/run/ebpf-fleet-loader/status.json"\n'
    )
    answer = run(host)
    assert not answer["ok"] and "did not confirm" in answer["detail"]


def test_a_forged_status_of_the_loader_before_does_not_confirm(host: Path) -> None:
    forged = '{"bundle":{"digest":"%s"}}' % digest(host, "old")
    (host / "run/ebpf-fleet-loader/status.json").write_text(forged)
    answer = run(host, LOADER_SILENT="1")
    assert not answer["ok"] and "did not confirm" in answer["detail"]


@pytest.mark.parametrize("is_first", [False, True])
def test_a_stop_that_fails_is_a_failure_and_never_an_end(host: Path, is_first: bool) -> None:
    """Whether something runs still is then not known: the answer must not say that nothing does."""
    (host / "bin/systemctl").write_text('#!/bin/sh\necho "$1" >>"$CALLS"\n[ "$1" != stop ] || exit 1\n')
    if is_first:
        (host / "var/lib/ebpf-fleet/previous").unlink()
    answer = run(host, digest(host, "new") if is_first else None)
    assert (answer["ok"], answer["detail"]) == (False, "systemctl stop failed"), answer
    assert answer["changed"] is not is_first
    assert current(host) == ("releases/new" if is_first else "releases/old")
    # Nothing is started over what may run still.
    assert (host / "calls").read_text().split() == ["stop"]


@pytest.mark.slow
def test_a_systemctl_that_hangs_is_not_waited_for(host: Path) -> None:
    (host / "bin/systemctl").write_text("#!/bin/sh\nexec sleep 300\n")
    start = time.monotonic()
    answer = run(host)
    assert not answer["ok"] and "systemctl start failed" in answer["detail"]
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("state", ["nothing", "stopped"])
def test_a_service_that_ignores_the_stop_is_killed_by_its_cgroup(host: Path, state: str) -> None:
    """It ignores SIGTERM; frozen it would not even hear it. A real cgroup, found where a unit's is."""
    base = cgroup2()
    if base is None or os.geteuid() != 0:
        pytest.skip("making a cgroup needs root and cgroup v2")
    group = base / f"ef-test-{os.getpid()}-{state}"
    group.mkdir()
    place = host / "sys/fs/cgroup/system.slice/ebpf-fleet-loader.service"
    place.parent.mkdir(parents=True)
    place.symlink_to(group)
    enter = f"echo 0 >{group}/cgroup.procs; trap '' TERM; echo in; while :; do sleep 1; done"
    stubborn = subprocess.Popen(["bash", "-c", enter], stdout=subprocess.PIPE, text=True)
    try:
        assert stubborn.stdout is not None and stubborn.stdout.readline() == "in\n"
        if state == "stopped":
            stubborn.send_signal(signal.SIGSTOP)
        answer = run(host)
        assert answer["ok"] and current(host) == "releases/old", answer
        assert stubborn.wait(5) == -signal.SIGKILL
    finally:
        stubborn.kill()
        stubborn.wait()
        remove_group(group)


@pytest.mark.parametrize("bad", [{"from_digest": "x; rm -rf /"}, {"unit": "a b"}, {"root": "/tmp/$(id)"}])
def test_nothing_unquoted_gets_into_the_script(bad):
    with pytest.raises(FleetError, match=next(iter(bad))):
        rollback.render_rollback(**bad)


GOOD = {"stdout": rollback.MARK + '{"ok":true,"changed":true,"host_ms":40,"digest":"","detail":"off"}\n', "rc": 0}


@pytest.mark.parametrize(
    "answer",
    [
        {"unreachable": True, "msg": "timed out"},
        {"skipped": True, "msg": ""},
        {"stdout": "", "rc": 0},
        {"stdout": rollback.MARK + '{"ok":tr', "rc": 0},
        {"stdout": rollback.MARK + "[]", "rc": 0},
        {"stdout": rollback.MARK + '{"ok":"true"}', "rc": 0},
        {"stdout": rollback.MARK + '{"ok":false,"detail":"2 programs left"}', "rc": 1},
        {**GOOD, "rc": 1},
        {},
    ],
)
def test_anything_but_a_clear_yes_is_missing(answer):
    summary = kill_answer.summary({"a": GOOD, "b": answer}, [rollback.MARK])
    assert summary["confirmed"] == ["a"] and summary["missing"] == ["b"]
    assert "NOT confirmed: b (" in summary["sentence"]
    assert summary["hosts"]["b"]["detail"]


def test_a_summary_of_no_host_is_not_a_success():
    summary = kill_answer.summary({}, [rollback.MARK])
    assert summary["slowest_ms"] is None and "No host" in summary["sentence"]


def test_the_summary_names_the_slowest():
    slow = {"stdout": GOOD["stdout"].replace("40", "900"), "rc": 0}
    summary = kill_answer.summary({"a": GOOD, "b": slow}, [rollback.MARK])
    assert summary["slowest_ms"] == 900 and not summary["missing"]


def put_lease(host: Path, of: str) -> Path:
    path = host / "etc/ebpf-fleet/lease.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"bundle_digest":"%s"}\n' % of)
    return path


@pytest.mark.parametrize("previous", [True, False])
def test_the_probation_ends_with_the_release_that_was_on_it(host: Path, previous: bool) -> None:
    if not previous:
        (host / "var/lib/ebpf-fleet/previous").unlink()
    lease = put_lease(host, digest(host, "new"))
    assert run(host, digest(host, "new"))["ok"]
    assert not lease.exists()


def test_another_releases_lease_stays(host: Path) -> None:
    lease = put_lease(host, "0" * 64)
    assert run(host)["ok"]
    assert lease.exists()


def test_a_way_back_that_is_not_confirmed_leaves_the_lease(host: Path) -> None:
    lease = put_lease(host, digest(host, "new"))
    assert not run(host, LOADER_SILENT="1")["ok"]
    assert lease.exists()


# The signers that a change of trust replaced


def put_former(host: Path, running: str, before: str = "before\n", now: str = "now\n") -> Path:
    """What trust_host.py leaves beside the signers that it wrote: those of before, and for which release."""
    signers, former = host / "etc/ebpf-fleet/trust/allowed_signers", host / "etc/ebpf-fleet/trust-former"
    signers.parent.mkdir(parents=True)
    former.mkdir()
    signers.write_text(now)
    (former / "allowed_signers").write_text(before)
    (former / "running").write_text(running)
    (former / "written").write_text(hashlib.sha256(now.encode()).hexdigest())
    return signers


# A mv that cannot replace the signers, as on a disk that was mounted read-only meanwhile, and else is the real one.
MV = """#!/bin/sh
case $* in *trust-former*) exit 1 ;; esac
exec /bin/mv "$@"
"""


def spoil_mv(host: Path) -> None:
    (host / "bin/mv").write_text(MV)
    (host / "bin/mv").chmod(0o755)


@pytest.mark.parametrize("how", ["trust alone", "another release", "the way back"])
@pytest.mark.parametrize("spoiled", [False, True])
def test_signers_that_do_not_come_back_are_never_a_yes(host: Path, how: str, spoiled: bool) -> None:
    runs = digest(host, "old" if how == "the way back" else "new")
    signers = put_former(host, runs)
    if spoiled:
        spoil_mv(host)
    given = {"trust alone": {"trust_only": True}, "another release": {"from_digest": "0" * 64}, "the way back": {}}[how]
    answer = run(host, **given)
    assert answer["ok"] is not spoiled and answer["digest"] == runs, answer
    assert signers.read_text() == ("now\n" if spoiled else "before\n")
    assert (host / "etc/ebpf-fleet/trust-former").exists() is spoiled
    assert ("could not be restored" if spoiled else "trusted again") in answer["detail"]
    assert answer["changed"] is (how == "the way back" or not spoiled)


def test_signers_of_another_release_or_that_somebody_wrote_since_stay(host: Path) -> None:
    signers = put_former(host, digest(host, "old"))
    answer = run(host, trust_only=True)
    assert answer["ok"] and not answer["changed"] and signers.read_text() == "now\n"
    assert answer["detail"] == "the release stays and its trust too"
    (host / "etc/ebpf-fleet/trust-former/running").write_text(digest(host, "new"))
    (host / "etc/ebpf-fleet/trust-former/written").write_text("0" * 64)
    answer = run(host, trust_only=True)
    assert answer["ok"] and not answer["changed"] and signers.read_text() == "now\n"
    assert "was changed since" in answer["detail"] and (host / "etc/ebpf-fleet/trust-former").exists()


@pytest.mark.parametrize("gone", ["allowed_signers", "running", "written"])
def test_half_of_a_change_of_trust_restores_nothing(host: Path, gone: str) -> None:
    signers = put_former(host, digest(host, "new"))
    (host / "etc/ebpf-fleet/trust-former" / gone).unlink()
    answer = run(host, trust_only=True)
    assert answer["ok"] and not answer["changed"] and signers.read_text() == "now\n", answer
