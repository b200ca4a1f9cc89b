# SPDX-License-Identifier: GPL-3.0-or-later
"""runqlat beside BCC's own, in a VM of the lab: BCC compiles against kernel headers, which this machine need not have.

The lab hides that VM's BTF for tests of other things; both are measured in a mount namespace where it is not hidden.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Mapping, NamedTuple

from tests.lab import apt, guest, paths, settings, ssh, system
from tests.lab.errors import LabError
from tests.loader.bundles import Trust, make_bundle, make_key
from tests.loader.service import feature_of, roomy
from tests.support.play import ROOT, lab
from tools.bench.cost import Cost
from tools.bench.machine import build_generator, say
from tools.bench.ours import LOADER, OBJECTS
from tools.bench.report import Result
from tools.bench.runqlat import costs

HOST = "k61bcc"
ROUNDS = int(os.environ.get("EBPF_FLEET_BENCH_VM_ROUNDS", "3"))
PACKAGE = "bpfcc-tools"
TOOL = "usr/sbin/runqlat-bpfcc"
KEPT = ROOT / ".cache/bench" / PACKAGE
FOLDER = "/run/ef-bench"  # not in /tmp: the host may mount it without exec
SECONDS = 900.0
MODULES = (
    "tools/__init__", "tools/bench/__init__", "tools/bench/machine", "tools/bench/tracers", "tools/bench/cost",
    "tools/bench/guest", "tests/support/__init__", "tests/support/play",
)  # fmt: skip
# In a mount namespace of its own, so that the host stays as the lab made it.
RUN = (
    "umount /sys/kernel/btf 2>/dev/null; test -e /sys/kernel/btf/vmlinux && exec python3 -m tools.bench.guest {rounds}"
)


class NoVMError(Exception):
    """There is no VM to measure in; the message says why."""


class Measured(NamedTuple):
    """The rounds of both, and on what."""

    ours: list[Cost]
    theirs: list[Cost]
    where: str


NOTES: list[str] = []


def tool() -> Path:
    """BCC's runqlat, of the suite that the VM is made of; kept once it was fetched."""
    kept: Path = KEPT / TOOL
    if not kept.exists():
        suite = settings.load(paths.SETTINGS).hosts[HOST].userland.suite
        with tempfile.TemporaryDirectory() as folder, system.exclusive(paths.LOCK):
            root = apt.Root([suite])
            root.update()
            package = root.download([PACKAGE], Path(folder))[0]
            KEPT.mkdir(parents=True, exist_ok=True)
            system.run(["dpkg-deb", "-x", package, KEPT], f"unpack {PACKAGE}")
    return kept


@contextmanager
def vm() -> Iterator[guest.Record]:
    """The VM; one that runs already is used and left as it is, one that was started for this is ended."""
    ran = guest.record(HOST) is not None
    if ran and guest.state(HOST) != "running":
        raise NoVMError(f"{HOST} is {guest.state(HOST)}: somebody tests with it")
    try:
        if not ran:
            say(f"boots the VM {HOST}; its image is made first where there is none, which takes some minutes")
            if lab("up", HOST, timeout=SECONDS).returncode:
                raise NoVMError(f"{HOST} does not come up")
        found = guest.record(HOST)
        if found is None:
            raise NoVMError(f"{HOST} has ended")
        yield found
    except subprocess.TimeoutExpired as error:
        raise NoVMError(f"no answer within {error.timeout:.0f} s") from error
    finally:
        if not ran:
            lab("down", HOST)


def pack(folder: Path) -> bytes:
    """All that the measurement needs over there."""
    trust = Trust(folder / "trust", make_key(folder / "key"))
    contract, objects = feature_of(OBJECTS, "runqlat")
    make_bundle(folder / "bundle", trust.key, {"runqlat": (roomy(contract), objects)}, loader=LOADER)
    files = {"bundle": folder / "bundle", "signers": trust.signers, "ebpf-loader": LOADER}
    files.update({"generator": build_generator(folder), "runqlat-bpfcc": tool()})
    files.update({f"{name}.py": ROOT / f"{name}.py" for name in MODULES})
    collection = "collections/ansible_collections/ebpf/fleet"
    utils = (ROOT / "plugins/module_utils").rglob("*.py")
    files.update({f"{collection}/{each.relative_to(ROOT)}": each for each in utils})
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
        for name, source in files.items():
            tar.add(source, name, filter=_of_root)
    return packed.getvalue()


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    return member


def over_ssh(port: int, script: str, stdin: bytes = b"") -> bytes:
    """Run a script in the VM; what it says on standard error is shown as it comes."""
    done = subprocess.run(
        ssh.command(port, [script]), input=stdin, stdout=subprocess.PIPE, timeout=SECONDS, check=False
    )
    if done.returncode:
        raise NoVMError(f"{HOST}: the measurement ended with status {done.returncode}; see its message above")
    return done.stdout


def where(found: guest.Record) -> str:
    """The VM by its traits."""
    how = {"tcg": "emulated processor", "kvm": "virtual machine"}[found.accelerator]
    return f"{how}, kernel {'.'.join(found.kernel.split('.')[:2])}"


def measure(found: guest.Record) -> Measured:
    """Carry it over, have it measured, and clear up."""
    with tempfile.TemporaryDirectory() as folder:
        data = pack(Path(folder))
    over_ssh(found.port, f"rm -rf {FOLDER} && mkdir {FOLDER} && tar -xzf - -C {FOLDER}", data)
    try:
        script = f"cd {FOLDER} && exec unshare -m sh -c '{RUN.format(rounds=ROUNDS)}'"
        document = json.loads(over_ssh(found.port, script))
    finally:
        over_ssh(found.port, f"rm -rf {FOLDER}")
    return Measured(read(document["ours"]), read(document["bcc"]), where(found))


def read(rounds: list[Mapping[str, Any]]) -> list[Cost]:
    """The rounds as the guest told them."""
    return [Cost(**each) for each in rounds]


def bcc() -> Iterator[Result]:
    """Ours and BCC's in turns on the same load, in one VM. Without a VM there are no such results."""
    try:
        with vm() as found:
            measured = measure(found)
    except (NoVMError, LabError) as error:
        reason = str(error).partition("\n")[0].rstrip(":.")
        NOTES.append(f"Not measured: BCC's runqlat, as there was no VM for it: {reason}.")
        say(f"LEFT OUT: runqlat beside BCC's: {error}")
        return
    NOTES.append(f"`in a VM`: 1 CPU, {measured.where}, statistics on as here; both in turns, on the same load.")
    yield from costs("runqlat in a VM", measured.ours, "BCC runqlat", measured.theirs)
