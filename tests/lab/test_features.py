# SPDX-License-Identifier: GPL-3.0-or-later
"""Every variant of every feature on the guests that run: a real workload, and the numbers that come of it.

Leaves nothing in a guest: the loader runs from a folder of its own, which is removed.
"""

from __future__ import annotations

import functools
import json
import platform
import subprocess
import tarfile
from pathlib import Path
from typing import Any, Mapping

import pytest

from tests.lab import guest, paths, settings, ssh
from tests.loader.bundles import Trust, make_key
from tests.loader.conftest import BUILD, run_make
from tests.loader.features import checks, rounds
from tests.loader.service import contract_of

HOSTS = settings.load(paths.SETTINGS).hosts
TURNS = [(name, entry["name"]) for name in rounds.NAMES for entry in contract_of(name)["variants"]]
FOLDER = "/run/ef-features"  # not in /tmp: the host may mount it without exec
SECONDS = 600.0


def _attach_targets() -> list[str]:
    wanted = {need.split(":")[2] for name in rounds.NAMES for entry in contract_of(name)["variants"]
              for need in entry["requires"] if need.startswith(("attach:fentry", "attach:kprobe"))}  # fmt: skip
    return sorted(wanted)


# What the kernel has to attach to, told by itself and not by our code.
_HAS = (
    f"grep -woE '({'|'.join(_attach_targets())})$' /proc/kallsyms; "
    "tr , '\\n' </sys/kernel/security/lsm | sed 's/^/lsm:/'; echo; "
    "test ! -e /sys/kernel/btf/vmlinux || echo btf; "
    "sed -n 's/.*\\[confidentiality\\].*/lockdown/p' /sys/kernel/security/lockdown"
)


@pytest.fixture(scope="session")
def objects() -> Path:
    run_make("features")
    return BUILD / "features"


@pytest.fixture(scope="session")
def binary() -> Path:
    run_make("loader")
    return BUILD / "loader" / platform.machine() / "ebpf-loader"


def port_of(name: str) -> int:
    found = guest.record(name)
    if found is None or guest.state(name) != "running":
        pytest.skip(f"{name} does not run: python3 -m tests.lab up {name}")
    return found.port


def send(port: int, source: Path, target: str = FOLDER) -> None:
    """Put a folder in the place of the target, and only there."""
    command = ssh.command(port, [f"rm -rf {target} && mkdir {target} && tar -x -C {target}"])
    with subprocess.Popen(command, stdin=subprocess.PIPE) as receiver:
        assert receiver.stdin is not None
        with tarfile.open(fileobj=receiver.stdin, mode="w|") as archive:
            archive.add(source, arcname=".", filter=_of_root)
        receiver.stdin.close()
        assert receiver.wait(SECONDS) == 0


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    return member


@functools.lru_cache(maxsize=None)
def kernel_has(port: int) -> frozenset[str]:
    return frozenset(ssh.run(port, _HAS, SECONDS).split())


@pytest.fixture(scope="session")
def run_round(objects: Path, binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run a round in a guest, once in a session; its document."""
    key = make_key(tmp_path_factory.mktemp("keys"))

    @functools.lru_cache(maxsize=None)
    def run(port: int, number: int) -> Mapping[str, Any]:
        folder = tmp_path_factory.mktemp("rounds")
        send(port, rounds.make_round(folder, number, objects, binary, Trust(folder / "trust", key)))
        document: Mapping[str, Any] = json.loads(ssh.run(port, rounds.command(FOLDER), SECONDS))
        ssh.run(port, f"rm -rf {FOLDER}")
        return document

    return run


def missing_of(name: str, variant: str, has: frozenset[str]) -> list[str]:
    """The requirements that this kernel cannot meet, by what it says of itself."""
    needs = next(entry["requires"] for entry in contract_of(name)["variants"] if entry["name"] == variant)
    missing = []
    for need in needs:
        kind, hook, target = [*need.split(":"), "", ""][:3]
        probed = kind == "attach" and hook in ("fentry", "kprobe")
        if (kind == "btf" and "btf" not in has) or (probed and target not in has):
            missing.append(need)
        if kind == "attach" and hook == "lsm" and "lsm:bpf" not in has:
            missing.append(need)
    return missing


@pytest.mark.parametrize(("name", "variant"), TURNS)
@pytest.mark.parametrize("host", sorted(HOSTS))
def test_a_variant_counts_what_the_workload_did(run_round: Any, host: str, name: str, variant: str) -> None:
    port = port_of(host)
    number = [entry["name"] for entry in contract_of(name)["variants"]].index(variant)
    found = run_round(port, number)
    has = kernel_has(port)
    missing = missing_of(name, variant, has)
    if not missing and "lockdown" not in has:
        checks.check(found, name, variant)
        return
    reasons = ["EF_NO_BTF", "EF_NO_ATTACH_POINT", "EF_LSM_INACTIVE", *(["EF_LOCKDOWN"] if "lockdown" in has else [])]
    state, code = checks.reached(found, name)
    assert state == "disabled" and code in reasons, (state, code)
    pytest.skip(f"{host} lacks {missing or 'unlocked memory'}: {found['attached']['features'][name]['reason']}")
