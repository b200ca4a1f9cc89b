# SPDX-License-Identifier: GPL-3.0-or-later
"""Our tables of the kernel's numbers against the kernel that runs: its BTF, and what it says of itself."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import kernelfacts, nextkernel
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfnames, bpfsys

BTF = Path("/sys/kernel/btf/vmlinux")
ENUMS = ("bpf_prog_type", "bpf_map_type", "bpf_func_id", "bpf_link_type", "bpf_attach_type", "bpf_cmd")

needs_btf = pytest.mark.skipif(not os.access(BTF, os.R_OK), reason=f"{BTF} cannot be read: this kernel has no BTF")


@pytest.fixture(scope="module")
def enums() -> dict[str, dict[str, int]]:
    return nextkernel.enumerators(BTF.read_bytes(), ENUMS)


def by_number(enums: dict[str, dict[str, int]], enum: str, prefix: str) -> dict[int, str]:
    """{number: name in lower case} of an enum's members with that prefix."""
    return {
        number: name[len(prefix) :].lower()
        for name, number in enums[enum].items()
        if name.startswith(prefix) and not name.startswith("__")
    }


@needs_btf
@pytest.mark.parametrize(
    ("table", "enum", "prefix"),
    [
        (bpfnames.PROGRAM_TYPES, "bpf_prog_type", "BPF_PROG_TYPE_"),
        (bpfnames.MAP_TYPES, "bpf_map_type", "BPF_MAP_TYPE_"),
        (bpfnames.HELPERS, "bpf_func_id", "BPF_FUNC_"),
        (bpfnames.LINK_TYPES, "bpf_link_type", "BPF_LINK_TYPE_"),
        (bpfnames.ATTACH_TYPES, "bpf_attach_type", "BPF_"),
    ],
)
def test_each_name_has_the_kernels_number(
    enums: dict[str, dict[str, int]], table: tuple[str, ...], enum: str, prefix: str
) -> None:
    kernel = by_number(enums, enum, prefix)
    # One number may have two names (cgroup_storage became cgroup_storage_deprecated).
    names = {number: {name[len(prefix) :].lower() for name, value in enums[enum].items() if value == number}
             for number in kernel}  # fmt: skip
    known = {number: name for number, name in enumerate(table) if number in names}
    assert len(known) > 8
    assert {number: name for number, name in known.items() if name not in names[number]} == {}


@needs_btf
@pytest.mark.parametrize(
    ("number", "name"),
    [
        (bpfnames.TRACE_RAW_TP, "TRACE_RAW_TP"),
        (bpfnames.TRACE_FENTRY, "TRACE_FENTRY"),
        (bpfnames.TRACE_FEXIT, "TRACE_FEXIT"),
        (bpfnames.MODIFY_RETURN, "MODIFY_RETURN"),
        (bpfnames.LSM_MAC, "LSM_MAC"),
        (bpfnames.TRACE_ITER, "TRACE_ITER"),
    ],
)
def test_attach_types(enums: dict[str, dict[str, int]], number: int, name: str) -> None:
    assert enums["bpf_attach_type"]["BPF_" + name] == number


@needs_btf
@pytest.mark.parametrize("name", ["PROG_GET_NEXT_ID", "PROG_GET_FD_BY_ID", "MAP_GET_NEXT_ID", "MAP_GET_FD_BY_ID",
                                  "LINK_GET_NEXT_ID", "LINK_GET_FD_BY_ID"])  # fmt: skip
def test_commands(enums: dict[str, dict[str, int]], name: str) -> None:
    assert enums["bpf_cmd"]["BPF_" + name] == getattr(bpfsys, name)


def test_capability_bits_are_those_of_the_header() -> None:
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip(f"{header} is not there; install linux-libc-dev")
    bits = dict(re.findall(r"^#define CAP_(\w+)\s+(\d+)$", header.read_text(), re.MULTILINE))
    assert {name: int(bits[name]) for name in kernelfacts._CAPABILITIES} == kernelfacts._CAPABILITIES


def test_security_modules_are_named_as_the_kernel_names_them() -> None:
    """securityfs and lsm_list_modules(2) tell the same list, the one by name, the other by number."""
    try:
        numbers = bpfsys.active_lsms()
    except (OSError, bpfsys.UnsupportedMachineError) as error:
        pytest.skip(f"this kernel has no lsm_list_modules(2), which came with 6.8: {error}")
    script = "mount -t securityfs securityfs /sys/kernel/security 2>/dev/null; cat /sys/kernel/security/lsm"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"securityfs cannot be mounted here: {done.stderr.strip()}")
    assert [kernelfacts.LSM_NAMES[number] for number in numbers] == done.stdout.strip().split(",")
    assert kernelfacts.list_lsms() == done.stdout.strip().split(",")
