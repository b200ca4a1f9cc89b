# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle whose loader is hostile: signed by a trusted key, so what runs of it must be able to do nothing.

The program is `hostile/loader.c`; the last test of each kind says what it would have done as root.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import files as bd
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import manifest as mf
from ansible_collections.ebpf.fleet.plugins.module_utils.confine.confined import FIRST_ID, Ended, run_confined
from ansible_collections.ebpf.fleet.plugins.module_utils.confine.confinement import Bounds, Place
from ansible_collections.ebpf.fleet.plugins.module_utils.confine.syscall_filter import MACHINES
from ansible_collections.ebpf.fleet.plugins.module_utils.release import store
from ansible_collections.ebpf.fleet.plugins.module_utils.release.desired import resolve_features

from tests.integration.release_host import (
    DRIVER,
    LOADER_FILE,
    FolderHost,
    environment,
    make_bundle,
    make_key,
    run_module,
    sign_again,
)

# A user may run a file, and a machine may be of another kind; `make test` is root's, and the compiler is setup's.
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a host's releases belong to root; run as root"),
    pytest.mark.skipif(platform.machine() not in MACHINES, reason="no filter of system calls for this machine"),
]
SOURCE = Path(__file__).parent / "hostile/loader.c"
BOUNDS = Bounds(20, 10, 256 * 1024 * 1024, 64 * 1024, 16 * 1024)
NEW = ("2.0.0", 2)
ESCAPES = "\x1b[2J\x1b[1;32mAll hosts confirmed\x1b[0m\u202e\x07"


@pytest.fixture
def victim() -> Iterator[int]:
    process = subprocess.Popen(["sleep", "600"])
    yield process.pid
    gone = process.poll()
    process.kill()
    process.wait()
    assert gone is None, "the hostile loader ended a process of the host"


class Hostile:
    """Compiles hostile loaders against things of this host that they must not reach."""

    def __init__(self, folder: Path, victim: int) -> None:
        self.folder = folder
        self.marker = folder / "marker"
        self.socket = folder / "socket"
        self.victim = victim

    def compile(self, end: str = "QUIET", words: str = "", status: int = 1, *more: str) -> Path:
        output = self.folder / f"hostile-{end}-{len(list(self.folder.iterdir()))}"
        defines = {"MARKER": json.dumps(str(self.marker)), "SOCKET": json.dumps(str(self.socket)),
                   "VICTIM": str(self.victim), "END": end, "WORDS": c_string(words), "STATUS": str(status)}  # fmt: skip
        options = [f"-D{name}={value}" for name, value in defines.items()]
        link = more or ("-static",)
        subprocess.run(["gcc", "-O1", "-w", *link, *options, "-o", str(output), str(SOURCE)], check=True)
        return output


def c_string(text: str) -> str:
    return '"' + "".join(f"\\{byte:03o}" for byte in text.encode()) + '"'


@pytest.fixture
def hostile(tmp_path: Path, victim: int) -> Hostile:
    folder = tmp_path / "hostile"
    folder.mkdir()
    return Hostile(folder, victim)


@pytest.fixture
def host(tmp_path: Path) -> FolderHost:
    return FolderHost(tmp_path / "host")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> FolderHost:
    host = FolderHost(tmp_path_factory.mktemp("template") / "host")
    assert host.deploy(make_bundle())["changed"]
    return host


@pytest.fixture
def deployed(tmp_path: Path, template: FolderHost) -> FolderHost:
    """A host that runs version 1.0.0."""
    return FolderHost(tmp_path / "deployed", template)


def with_loader(loader: Path) -> dict[str, bd.Member]:
    """A signed bundle, right in all but that its loader is this program."""
    bundle = make_bundle(*NEW)
    data = loader.read_bytes()
    doc = json.loads(bundle.manifest.data)
    doc["files"][LOADER_FILE].update(sha256=mf.digest_of(data), size=len(data))
    manifest = mf.canonical_json(doc).encode()
    members = dict(bundle.members)
    for path, content in (
        (LOADER_FILE, data),
        (mf.MANIFEST, manifest),
        (mf.SIGNATURE, sign_again(manifest, make_key())),
    ):
        members[path] = members[path]._replace(data=content)
    return members


def deploy(host: FolderHost, loader: Path) -> dict[str, Any]:
    """Deploy that bundle through the module; the host must be as it was. Returns the module's answer."""
    before = host.listing()
    answer = host.deploy_raw(with_loader(loader), resolve_features(None, make_bundle().contracts))
    assert answer.get("failed"), answer
    assert host.listing() == before and host.current() == make_bundle().manifest.release_id
    return answer


def confine(loader: Path, folder: Path, **changes: Any) -> Ended:
    """Run a program where a release's loader runs, beside an empty bundle."""
    release = folder / "release"
    (release / "bundle").mkdir(parents=True, exist_ok=True)
    (release / "bundle/manifest.json").write_text("{}")
    shutil.copy(loader, release / "ebpf-loader")
    (release / "ebpf-loader").chmod(0o755)
    place = Place(release / "ebpf-loader", release / "bundle", release)
    return run_confined(place, ["ebpf-loader", "verify", "/bundle"], BOUNDS._replace(**changes))


def confined_processes() -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            fields = dict(line.split(":", 1) for line in path.read_text().splitlines())
            alive = fields["State"].split()[0] != "Z"  # ended, and not yet fetched by init
            if alive and FIRST_ID <= int(fields["Uid"].split()[0]) < 2**31:
                found.append(int(path.parent.name))
    return found


def none_left() -> bool:
    """Is no such process left? One that was killed closes its files a moment before it is gone."""
    until = time.monotonic() + 10
    while confined_processes() and time.monotonic() < until:
        time.sleep(0.02)
    return confined_processes() == []


def test_a_process_of_any_name_can_be_confined(hostile: Hostile, tmp_path: Path) -> None:
    """A process's name may hold any byte, and stands in what the kernel is asked for."""
    name = Path("/proc/self/comm")
    before = name.read_bytes()
    name.write_bytes(b"\xff\xe9 odd")
    try:
        assert confine(hostile.compile(), tmp_path).ended.startswith("exit status ")
    finally:
        name.write_bytes(before.strip())


# What it tries


def test_nothing_that_a_hostile_loader_tries_is_done(hostile: Hostile, tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(hostile.socket))
    listener.listen()
    with listener:
        found = confine(hostile.compile(), tmp_path)
    lines = found.stderr.decode().splitlines()
    done = [line for line in lines if not line.startswith("refused ")]
    assert done == [] and found.status == 1, (done, found.ended)
    tried = {line.split()[1] for line in lines}
    source = SOURCE.read_text()
    meant = {part.split('"')[0] for part in source.split('TRY("')[1:]}
    meant |= {part.split(",")[0].split(")")[0] for part in source.split("\tCALL(")[1:]} - {"getpid"}
    assert meant - tried == set() and len(tried) > 80
    assert not hostile.marker.exists() and none_left()


def test_the_same_program_as_root_does_it(hostile: Hostile) -> None:
    """So that the test above can fail: as a child of root these succeed."""
    done = subprocess.run([str(hostile.compile())], capture_output=True, text=True, check=False)
    assert "DONE write_marker" in done.stderr and "DONE socket_unix" in done.stderr and "unconfined" in done.stderr
    assert hostile.marker.stat().st_uid == 0


def test_a_signed_bundle_with_a_hostile_loader_changes_nothing_on_the_host(
    deployed: FolderHost, hostile: Hostile
) -> None:
    answer = deploy(deployed, hostile.compile())
    assert not hostile.marker.exists(), "the signer's code ran as root"
    assert answer["reason_code"] == "EF_UNKNOWN" and "no verdict" in answer["msg"]
    assert "unconfined" not in answer["msg"]


# Of the architecture: no other has a second table of system calls that a program may enter by.
@pytest.mark.skipif(platform.machine() != "x86_64", reason="other numbers of system calls are a matter of x86_64")
@pytest.mark.parametrize("end", ["INT80", "X32"])
def test_calls_by_the_numbers_of_another_architecture_end_it(hostile: Hostile, tmp_path: Path, end: str) -> None:
    found = confine(hostile.compile(end), tmp_path)
    assert found.ended == f"killed by signal {int(signal.SIGSYS)}"
    assert b"DONE int80" not in found.stderr and b"x32" not in found.stderr


# What it takes


@pytest.mark.parametrize("end", ["SPINS", "WAITS"])
def test_one_that_never_ends_is_ended(hostile: Hostile, tmp_path: Path, end: str) -> None:
    started = time.monotonic()
    found = confine(hostile.compile(end), tmp_path, seconds=2)
    assert found.ended == "killed, not done within 2 s" and found.status is None
    assert time.monotonic() - started < 15 and none_left()


def test_one_that_spins_runs_out_of_cpu_time(hostile: Hostile, tmp_path: Path) -> None:
    found = confine(hostile.compile("SPINS"), tmp_path, cpu_seconds=1)
    assert found.ended == f"killed by signal {int(signal.SIGKILL)}"


def test_one_that_floods_is_ended(hostile: Hostile, tmp_path: Path) -> None:
    found = confine(hostile.compile("FLOODS"), tmp_path)
    assert found.ended == "killed, wrote more than 65536 bytes"
    assert len(found.stdout) <= 65536 + 65536 and none_left()


def test_one_that_eats_memory_gets_none_beyond_its_limit(hostile: Hostile, tmp_path: Path) -> None:
    found = confine(hostile.compile("EATS"), tmp_path, memory_bytes=64 * 1024 * 1024)
    ate = int(found.stderr.decode().split()[1])
    assert 8 * 1024 * 1024 < ate < 64 * 1024 * 1024


# Confines program ARGV[1] beside folder ARGV[2], and says how it ended.
CONFINE = (
    "import sys; from pathlib import Path; import tests.integration.test_confined as t\n"
    "found = t.confine(Path(sys.argv[1]), Path(sys.argv[2]), seconds=100, cpu_seconds=100)\n"
    "print(found.ended, found.stderr.decode())"
)
IMPORTS = f"{SOURCE.parents[3] / 'collections'}{os.pathsep}{SOURCE.parents[3]}"


CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def start_confined(loader: Path, folder: Path, *prefix: str) -> subprocess.Popen[str]:
    command = [*prefix, sys.executable, "-c", CONFINE, str(loader), str(folder)]
    return subprocess.Popen(command, env=environment(PYTHONPATH=IMPORTS), stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_it_dies_with_the_module(hostile: Hostile, tmp_path: Path) -> None:
    process = start_confined(hostile.compile("WAITS"), tmp_path)
    try:
        wait_for(lambda: len(confined_processes()) == 1)
    finally:
        process.kill()
        process.communicate()
    wait_for(lambda: none_left())


@pytest.mark.slow
def test_hosts_that_share_a_kernel_verify_at_the_same_time(hostile: Hostile, tmp_path: Path) -> None:
    """Containers count their processes from 1 each, so that the runs of all three are of the same user."""
    others = [start_confined(hostile.compile("WAITS"), tmp_path / name, *CONTAINER) for name in ("first", "second")]
    try:
        wait_for(lambda: len(confined_processes()) == 2)
        (user,) = {Path(f"/proc/{pid}").stat().st_uid for pid in confined_processes()}
        third = start_confined(hostile.compile("WHO"), tmp_path / "third", *CONTAINER)
        said, _none = third.communicate(timeout=60)
        assert said.split() == ["exit", "status", "1", "user", str(user)]
        assert [one.poll() for one in others] == [None, None]
    finally:
        for one in others:
            one.kill()
            one.communicate()


@pytest.mark.slow
def test_a_host_that_is_short_of_processes_is_said_to_be(hostile: Hostile, tmp_path: Path) -> None:
    """The loader is not blamed for it. The limit is met by a process of the same user in another container."""
    other = start_confined(hostile.compile("WAITS"), tmp_path / "first", *CONTAINER)
    try:
        wait_for(lambda: len(confined_processes()) == 1)
        limited = ["prlimit", "--nproc=0:0", *CONTAINER, sys.executable, "-c", CONFINE, str(hostile.compile("WHO"))]
        done = subprocess.run([*limited, str(tmp_path / "second")], env=environment(PYTHONPATH=IMPORTS),
                              capture_output=True, text=True, check=False, timeout=60)  # fmt: skip
        assert "exec: Resource temporarily unavailable; this host is short of processes" in done.stderr, done
        assert "user" not in done.stdout
    finally:
        other.kill()
        other.communicate()


def wait_for(condition: Any, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to be"
        time.sleep(0.05)


# What it says


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ('{"ok": true, "digest": "' + "0" * 64 + '"}', 0),
        ('{"ok": true, "digest": "' + ESCAPES + '"}', 0),
        ('{"ok": false, "reason_code": "EF_OK' + ESCAPES + '", "reason": "x"}', 3),
        ('{"ok": false, "reason_code": "EF_SIG_BAD", "reason": "' + ESCAPES + '", "file": "' + ESCAPES + '"}', 3),
        ('{"ok": false, "reason_code": ["EF_SIG_BAD"], "reason": {}}', 3),
        ("[" * 20000, 0),
        ('{"ok": NaN}', 0),
        (ESCAPES, 0),
        ("", 0),
    ],
)
def test_what_it_says_is_data(deployed: FolderHost, hostile: Hostile, words: str, status: int) -> None:
    answer = deploy(
        deployed, hostile.compile("SAYS", words.replace("\x1b", "\\u001b").replace("\x07", "\\u0007"), status)
    )
    assert answer["reason_code"] in ("EF_UNKNOWN", "EF_SIG_BAD")
    for text in (answer["msg"], answer["file"] or ""):
        assert all(letter.isprintable() for letter in text) and len(text) < 1500


def test_raw_escapes_on_its_standard_error_are_made_printable(deployed: FolderHost, hostile: Hostile) -> None:
    loader = hostile.compile("SAYS", ESCAPES + "\n", 1)
    answer = deploy(deployed, loader)
    assert answer["reason_code"] == "EF_UNKNOWN" and answer["msg"].isprintable()


def test_a_yes_that_ends_badly_is_refused(deployed: FolderHost, hostile: Hostile) -> None:
    assert "ends otherwise" in deploy(deployed, hostile.compile("SAYS", '{"ok": true}', 4))["msg"]


def test_one_that_dies_is_said_to_have_died(deployed: FolderHost, hostile: Hostile) -> None:
    assert f"killed by signal {int(signal.SIGSEGV)}" in deploy(deployed, hostile.compile("DIES"))["msg"]


def test_only_a_static_program_of_this_machine_is_run(deployed: FolderHost, hostile: Hostile) -> None:
    script = hostile.folder / "script"
    script.write_text(f"#!/bin/sh\ntouch {hostile.marker}\n")
    noise = hostile.folder / "noise"
    noise.write_bytes(b"\x7fELF" + b"\0" * 200)
    for loader in (script, noise, hostile.compile("QUIET", "", 1, "-pie", "-fPIE")):
        assert deploy(deployed, loader)["reason_code"] == "EF_LOADER_ARCH"
    assert not hostile.marker.exists()


# The right loader


def test_the_trust_files_are_judged_by_it_as_they_are_on_the_host(host: FolderHost) -> None:
    bundle = make_bundle()
    assert host.deploy(bundle)["changed"]
    layout, release = store.Layout(host.root), (host.base / "current").resolve()
    store.verify_with_loader(layout, release, bundle.manifest.digest)
    for path in (host.trust, host.trust / "allowed_signers"):
        mode = path.stat().st_mode
        path.chmod(mode | 0o022)
        assert refusal(layout, release).code == "EF_TRUST_MALFORMED"
        path.chmod(mode)
    os.chown(host.trust / "allowed_signers", 1234, 1234)
    assert refusal(layout, release).code == "EF_TRUST_MALFORMED"
    (host.trust / "allowed_signers").unlink()
    os.mkfifo(host.trust / "allowed_signers")
    assert refusal(layout, release).code == "EF_TRUST_MALFORMED"
    (host.trust / "allowed_signers").unlink()
    assert refusal(layout, release).code == "EF_TRUST_MISSING"


def refusal(layout: store.Layout, release: Path) -> FleetError:
    with pytest.raises(FleetError) as refused:
        store.verify_with_loader(layout, release, make_bundle().manifest.digest)
    return refused.value


def test_verifying_leaves_no_mount_no_descriptor_and_no_process(host: FolderHost) -> None:
    bundle = make_bundle()
    host.deploy(bundle)
    layout, release = store.Layout(host.root), (host.base / "current").resolve()
    mounts, descriptors = Path("/proc/self/mountinfo").read_text(), sorted(os.listdir("/proc/self/fd"))
    before = host.listing(times=True)
    for _ in range(3):
        store.verify_with_loader(layout, release, bundle.manifest.digest)
    assert str(host.root) not in mounts + Path("/proc/self/mountinfo").read_text()
    assert sorted(os.listdir("/proc/self/fd")) == descriptors
    assert host.listing(times=True) == before and none_left()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# Hosts that cannot confine


def module_within(prefix: list[str], host: FolderHost) -> dict[str, Any]:
    """The module's answer to a first deployment, started by another command."""
    bundle = make_bundle()
    archive = host.root.parent / "b.tar"
    archive.write_bytes(bd.as_tar(bundle))
    asked = host.questions(bundle.members, resolve_features(None, bundle.contracts), archive=str(archive))
    done = subprocess.run([*prefix, sys.executable, "-c", DRIVER, "release"], env=environment(), text=True,
                          input=json.dumps({"ANSIBLE_MODULE_ARGS": asked}), capture_output=True, check=False,
                          timeout=120)  # fmt: skip
    assert done.stdout.strip(), done.stderr
    return dict(json.loads(done.stdout))


def user_namespace(inner: str, everybody: bool) -> list[str]:
    """A command that goes on in a user namespace, in which root or all ids are themselves, after ``inner``."""
    ids = "0 0 4294967295" if everybody else "0 0 1"
    script = (
        "import ctypes, os, subprocess, sys\n"
        "go, ready = os.pipe(), os.pipe()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    assert ctypes.CDLL(None).unshare(0x10000000 | 0x20000) == 0\n"
        "    os.write(ready[1], b'x'); os.read(go[0], 1)\n"
        "    os.setresuid(0, 0, 0)\n"
        "    subprocess.run(['sh', '-c', sys.argv[1]], check=True)\n"
        "    os.execvp(sys.argv[2], sys.argv[2:])\n"
        "os.read(ready[0], 1)\n"
        f"[open('/proc/%d/%s_map' % (pid, kind), 'w').write('{ids}') for kind in 'ug' for kind in [kind + 'id']]\n"
        "os.write(go[1], b'x')\n"
        "sys.exit(os.waitpid(pid, 0)[1] != 0)\n"
    )
    return [sys.executable, "-c", script, inner]


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        (user_namespace("echo 0 >/proc/sys/user/max_pid_namespaces", True), "user.max_pid_namespaces"),
        (user_namespace("echo 0 >/proc/sys/user/max_mnt_namespaces", True), "user.max_mnt_namespaces"),
        (user_namespace("true", False), "user namespace"),
        (["setpriv", "--bounding-set", "-sys_admin"], "CAP_SYS_ADMIN"),
    ],
)
def test_a_host_that_cannot_confine_it_does_not_run_it(host: FolderHost, prefix: list[str], words: str) -> None:
    before = host.listing()
    answer = module_within(prefix, host)
    assert answer.get("failed") and answer["reason_code"] == "EF_NO_CONFINEMENT", answer
    assert words in answer["msg"] and "was not run" in answer["msg"]
    # The lock's folder is made before; no release and nothing to run.
    assert host.releases() == [] and host.current() is None
    assert [entry for entry in before if entry not in host.listing()] == []


def test_namespaces_of_the_network_may_be_forbidden(host: FolderHost) -> None:
    """No system call that could use a network is allowed, so the host's own namespace is as good."""
    limits = " && ".join(f"echo 0 >/proc/sys/user/max_{kind}_namespaces" for kind in ("net", "ipc", "uts"))
    answer = module_within(user_namespace(limits, True), host)
    assert answer.get("changed") and host.loader_verifies(), answer


def test_a_module_without_standard_descriptors_or_word_of_its_children_can_do_it(host: FolderHost) -> None:
    bundle = make_bundle()
    host.deploy(bundle)
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "from ansible_collections.ebpf.fleet.plugins.module_utils.release import store\n"
        "[os.close(fd) for fd in (0, 1, 2)]\n"
        "root = Path(sys.argv[1])\n"
        "release = (root / 'var/lib/ebpf-fleet/current').resolve()\n"
        "store.verify_with_loader(store.Layout(root), release, sys.argv[2])"
    )
    command = [sys.executable, "-c", code, str(host.root), bundle.manifest.digest]
    assert subprocess.run(command, env=environment(), check=False, timeout=60).returncode == 0


def test_the_module_names_the_option_that_was_used(host: FolderHost) -> None:
    answer, _done = run_module("release", host.arguments(state="absent", digest="0" * 64))
    assert answer and answer["reason_code"] == "EF_ARGUMENT" and "digest" in answer["msg"]
