# SPDX-License-Identifier: GPL-3.0-or-later
"""What changes at the next boot: facts of a kernel that does not run, and what they lead to."""

from __future__ import annotations

import gzip
import json
import lzma
import platform
import random
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import nextkernel
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import kernelimage

ROOT = Path(__file__).resolve().parents[2]
RELEASE = "6.99.0-1-test"
YES = {"answer": "yes", "evidence": "tried"}
NO = {"answer": "no", "evidence": "EINVAL"}

INT, ENUM, TYPEDEF, FUNC, FUNC_PROTO = 1, 6, 8, 12, 13


class Btf:
    """Makes the BTF of a kernel that has just these enums, tracepoints and functions."""

    def __init__(self) -> None:
        self.strings = b"\0"
        self.types = b""

    def name(self, text: str) -> int:
        self.strings += text.encode() + b"\0"
        return len(self.strings) - len(text) - 1

    def add(self, name: str, kind: int, size: int = 0, words: tuple[int, ...] = (), members: int = 0) -> None:
        at = self.name(name) if name else 0
        self.types += struct.pack("<III", at, kind << 24 | members, size) + struct.pack(f"<{len(words)}I", *words)

    def enum(self, name: str, prefix: str, values: list[str]) -> None:
        words = [word for value, text in enumerate(values) for word in (self.name(prefix + text), value)]
        self.add(name, ENUM, 4, tuple(words), len(values))

    def blob(self) -> bytes:
        head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings))
        return head + self.types + self.strings


def kernel_btf(tracepoints: tuple[str, ...] = ("sched_switch",), functions: tuple[str, ...] = ("vfs_unlink",)) -> bytes:
    """`trace_call_bpf` is there: it shows that tracing was compiled in."""
    made = Btf()
    made.enum("bpf_prog_type", "BPF_PROG_TYPE_", ["UNSPEC", "KPROBE", "RAW_TRACEPOINT", "TRACING", "LSM", "LIRC_MODE2"])
    made.enum("bpf_map_type", "BPF_MAP_TYPE_", ["UNSPEC", "HASH", "PERCPU_ARRAY", "XSKMAP"])
    made.enum("bpf_func_id", "BPF_FUNC_", ["unspec", "ktime_get_ns", "map_lookup_elem"])
    made.add("", FUNC_PROTO)
    for name in tracepoints:
        made.add("btf_trace_" + name, TYPEDEF, 1)
    for name in ("trace_call_bpf", *functions):
        made.add(name, FUNC, 4)
    return made.blob()


def host(root: Path, blob: bytes | None, config: str | None = None) -> Path:
    """A host on which one kernel is installed and none is chosen otherwise."""
    from tests.unit.test_nextkernel_image import vmlinux

    (root / "boot").mkdir()
    (root / f"boot/vmlinuz-{RELEASE}").write_bytes(vmlinux(blob))
    if config is not None:
        (root / f"boot/config-{RELEASE}").write_text(config)
    return root


def contract(feature: str, *variants: tuple[str, list[str]]) -> dict[str, Any]:
    return {"feature": feature, "variants": [{"name": name, "requires": needs} for name, needs in variants]}


def facts(**tables: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "kernel": {"release": "6.1.0", "family": "6.1", "machine": "x86_64", "build_id": "ab" * 20},
        "distro": {"id": "debian"},
        "btf": {**YES, "state": "vmlinux", "bundled": NO},
        "lockdown": {"mode": "none", "evidence": "read"},
        "lsms": ["lockdown", "bpf"],
        "program_types": dict.fromkeys(("kprobe", "tracing", "raw_tracepoint", "lsm"), YES),
        "map_types": dict.fromkeys(("hash", "percpu_array", "ringbuf"), YES),
        "helpers": {},
        "attach_points": {},
    }
    return {**base, **tables}


def asked(root: Path, *contracts: dict[str, Any], now: dict[str, Any] | None = None) -> dict[str, Any]:
    return nextkernel.preflight(root, "auto", now or facts(), list(contracts), "2026-11-23")


UNLINKS = contract(
    "file_unlinks",
    ("full", ["attach:fentry:do_unlinkat", "prog_type:tracing"]),
    ("reduced", ["attach:fentry:vfs_unlink", "prog_type:tracing"]),
)


def test_a_function_that_is_gone_in_the_next_kernel_is_a_change_with_its_reason(tmp_path: Path) -> None:
    points = {"fentry:do_unlinkat": YES, "fentry:vfs_unlink": YES}
    found = asked(host(tmp_path, kernel_btf()), UNLINKS, now=facts(attach_points=points))
    assert found["release"] == RELEASE and found["btf"]["answer"] == "yes"
    assert found["source"].endswith(f"boot/vmlinuz-{RELEASE}")
    (change,) = found["changes"]
    assert change["from"] == {"profile": "full", "variant": "full"}
    assert change["to"] == {"profile": "reduced", "variant": "reduced"}
    assert change["reason_code"] == "EF_NO_ATTACH_POINT"
    assert "do_unlinkat" in change["sentence"]


def test_a_kernel_that_brings_back_what_was_missing_is_a_change_too(tmp_path: Path) -> None:
    points = {"fentry:do_unlinkat": NO, "fentry:vfs_unlink": YES}
    root = host(tmp_path, kernel_btf(functions=("do_unlinkat", "vfs_unlink")))
    (change,) = asked(root, UNLINKS, now=facts(attach_points=points))["changes"]
    assert (change["from"]["profile"], change["to"]["profile"]) == ("reduced", "full")


def test_what_stays_is_no_change(tmp_path: Path) -> None:
    points = {"fentry:do_unlinkat": NO, "fentry:vfs_unlink": YES}
    found = asked(host(tmp_path, kernel_btf()), UNLINKS, now=facts(attach_points=points))
    assert found["changes"] == [] and found["profiles"]["file_unlinks"]["profile"] == "reduced"


@pytest.mark.parametrize(
    ("needs", "answer"),
    [
        ("prog_type:tracing", "yes"),
        ("prog_type:sk_lookup", "no"),
        # An enum holds the names of what was not compiled in, too.
        ("prog_type:lirc_mode2", "unknown"),
        ("map_type:xskmap", "unknown"),
        ("map_type:percpu_array", "yes"),
        ("map_type:ringbuf", "no"),
        ("attach:tp_btf:sched_switch", "yes"),
        ("attach:raw_tp:gone", "no"),
        ("attach:tracepoint:sched/sched_switch", "yes"),
        ("attach:kprobe:vfs_unlink", "yes"),
        # A function may be in a kernel and not in its BTF.
        ("attach:kprobe:do_unlinkat", "unknown"),
        ("attach:fentry:do_unlinkat", "no"),
        ("helper:tracing:ringbuf_reserve", "no"),
        ("helper:tracing:ktime_get_ns", "yes"),
        # The enum does not say which program type may call it, and the running kernel was not asked.
        ("helper:kprobe:map_lookup_elem", "unknown"),
    ],
)
def test_each_kind_of_requirement_is_answered_from_the_btf(tmp_path: Path, needs: str, answer: str) -> None:
    now = facts(helpers={"tracing:ktime_get_ns": YES})
    choice = nextkernel.Choice(RELEASE, "test")
    coming = nextkernel.Next(host(tmp_path, kernel_btf()), choice, now, [contract("one", ("full", [needs]))]).facts()
    kind, _colon, key = needs.partition(":")
    table = {"prog_type": "program_types", "map_type": "map_types", "helper": "helpers", "attach": "attach_points"}
    said = coming[table[kind]][key]
    assert said["answer"] == answer, said
    assert RELEASE in said["evidence"] or answer == "yes"


@pytest.mark.parametrize(
    ("config", "command_line", "answer"),
    [
        ('CONFIG_BPF_LSM=y\nCONFIG_LSM="landlock,bpf"\n', "quiet", "yes"),
        ('CONFIG_BPF_LSM=y\nCONFIG_LSM="landlock,apparmor"\n', "quiet", "no"),
        ('CONFIG_BPF_LSM=y\nCONFIG_LSM="landlock,apparmor"\n', "quiet lsm=landlock,bpf", "yes"),
        ('CONFIG_BPF_LSM=y\nCONFIG_LSM="landlock,bpf"\n', "lsm=apparmor", "no"),
        ('# CONFIG_BPF_LSM is not set\nCONFIG_LSM="bpf"\n', "quiet", "no"),
        (None, "quiet", "unknown"),
        (None, "lsm=bpf", "yes"),
    ],
)
def test_the_lsm_is_on_by_command_line_or_configuration(
    tmp_path: Path, config: str | None, command_line: str, answer: str
) -> None:
    root = host(tmp_path, kernel_btf(functions=("bpf_lsm_file_open",)), config)
    choice = nextkernel.Choice(RELEASE, "test", command_line)
    policy = contract("policy", ("full", ["attach:lsm:file_open"]))
    said = nextkernel.Next(root, choice, facts(), [policy]).attach("lsm", "file_open")
    assert said["answer"] == answer, said


# By which option a type is more than a name, and a function that is there only then.
CONDITIONS = {
    "program_type": {
        **dict.fromkeys(("kprobe", "tracepoint", "raw_tracepoint", "raw_tracepoint_writable", "perf_event", "tracing"),
                        ("CONFIG_BPF_EVENTS", "trace_call_bpf")),
        "lsm": ("CONFIG_BPF_LSM", "bpf_lsm_file_open"),
        "lirc_mode2": ("CONFIG_BPF_LIRC_MODE2", "lirc_prog_attach"),
        "struct_ops": ("CONFIG_BPF_JIT", "bpf_struct_ops_map_alloc"),
        "netfilter": ("CONFIG_NETFILTER_BPF_LINK", "bpf_nf_link_attach"),
    },
    "map_type": {
        "perf_event_array": ("CONFIG_PERF_EVENTS", "perf_event_fd_array_get_ptr"),
        "stack_trace": ("CONFIG_PERF_EVENTS", "stack_map_alloc"),
        "xskmap": ("CONFIG_XDP_SOCKETS", "xsk_map_alloc"),
        "cgroup_array": ("CONFIG_CGROUPS", "cgroup_fd_array_get_ptr"),
        "cgroup_storage": ("CONFIG_CGROUP_BPF", "cgroup_storage_map_alloc"),
        "percpu_cgroup_storage": ("CONFIG_CGROUP_BPF", "cgroup_storage_map_alloc"),
        "struct_ops": ("CONFIG_BPF_JIT", "bpf_struct_ops_map_alloc"),
        "inode_storage": ("CONFIG_BPF_LSM", "inode_storage_map_alloc"),
    },
}  # fmt: skip
EACH = [(kind, name, *need) for kind, table in CONDITIONS.items() for name, need in table.items()]


def of_types(root: Path, kind: str, name: str, config: str | None, functions: tuple[str, ...]) -> str:
    made = Btf()
    made.enum("bpf_prog_type", "BPF_PROG_TYPE_", [name.upper()] if kind == "program_type" else ["X"])
    made.enum("bpf_map_type", "BPF_MAP_TYPE_", [name.upper()] if kind == "map_type" else ["X"])
    made.add("", FUNC_PROTO)
    for function in functions:
        made.add(function, FUNC, 3)
    coming = nextkernel.Next(host(root, made.blob(), config), nextkernel.Choice(RELEASE, "test"), facts(), [])
    return str(getattr(coming, kind)(name)["answer"])


@pytest.mark.parametrize(("kind", "name", "option", "function"), EACH)
def test_a_type_is_there_by_its_option_or_else_by_its_function(
    tmp_path: Path, kind: str, name: str, option: str, function: str
) -> None:
    cases = {
        "on": (f"CONFIG_X=y\n{option}=y\n", (), "yes"),
        "module": (f"CONFIG_X=y\n{option}=m\n", (), "yes"),
        "off": (f"CONFIG_X=y\n# {option} is not set\n", (function,), "no"),
        "seen": (None, (function,), "yes"),
        "unseen": (None, ("other",), "unknown"),
    }
    for case, (config, functions, answer) in cases.items():
        (tmp_path / case).mkdir()
        assert of_types(tmp_path / case, kind, name, config, functions) == answer, case


@pytest.mark.parametrize("function", ["__x64_sys_execve", "__arm64_sys_execve", "__se_sys_execve", "sys_execve"])
@pytest.mark.parametrize("way", ["enter", "exit"])
def test_a_system_calls_tracepoint_is_there_by_any_name_of_its_function(
    tmp_path: Path, function: str, way: str
) -> None:
    needs = contract("one", ("full", [f"attach:tracepoint:syscalls/sys_{way}_execve"]))
    choice = nextkernel.Choice(RELEASE, "test")
    (tmp_path / "with").mkdir()
    coming = nextkernel.Next(host(tmp_path / "with", kernel_btf(functions=(function,))), choice, facts(), [needs])
    assert coming.attach("tracepoint", f"syscalls/sys_{way}_execve")["answer"] == "yes"
    (tmp_path / "without").mkdir()
    coming = nextkernel.Next(host(tmp_path / "without", kernel_btf()), choice, facts(), [needs])
    assert coming.attach("tracepoint", f"syscalls/sys_{way}_execve")["answer"] == "unknown"


def test_the_kernel_that_comes_is_described_by_its_release_and_this_machine(tmp_path: Path) -> None:
    root, choice = host(tmp_path, kernel_btf()), nextkernel.Choice(RELEASE, "test")
    now = facts(kernel={"release": "6.1.0", "machine": "riscv64", "build_id": None})
    found = nextkernel.Next(root, choice, now, []).facts()["kernel"]
    assert {**found, "build_id": None} == {
        "release": RELEASE, "family": "6.99", "distro_family": "debian-6.99", "machine": "riscv64", "build_id": None,
    }  # fmt: skip
    unknown = nextkernel.Next(root, choice, facts(kernel=None, distro=None), []).facts()["kernel"]
    assert (unknown["machine"], unknown["distro_family"]) == (platform.machine(), None)


@pytest.mark.parametrize(
    ("given", "present", "answer"),
    [(None, "quiet lsm=bpf", "yes"), (None, "lsm=yama", "no"), ("lsm=yama", "lsm=bpf", "no"), (None, None, "unknown")],
)
def test_the_present_command_line_stands_for_one_that_is_not_known(
    tmp_path: Path, given: str | None, present: str | None, answer: str
) -> None:
    root = host(tmp_path, kernel_btf(functions=("bpf_lsm_file_open",)))
    if present is not None:
        (root / "proc").mkdir()
        (root / "proc/cmdline").write_text(present + "\n")
    needs = contract("policy", ("full", ["attach:lsm:file_open"]))
    coming = nextkernel.Next(root, nextkernel.Choice(RELEASE, "test", given), facts(), [needs])
    assert coming.attach("lsm", "file_open")["answer"] == answer


def test_an_option_that_is_off_goes_before_the_enum(tmp_path: Path) -> None:
    root = host(tmp_path, kernel_btf(), "CONFIG_BPF_EVENTS=y\n# CONFIG_KPROBE_EVENTS is not set\n")
    coming = nextkernel.Next(root, nextkernel.Choice(RELEASE, "test"), facts(), [])
    assert coming.program_type("lsm")["answer"] == "no"
    assert coming.program_type("tracing")["answer"] == "yes"
    assert coming.attach("kprobe", "vfs_unlink")["answer"] == "no"


def test_a_kernel_without_btf_loses_what_needs_it(tmp_path: Path) -> None:
    now = facts(attach_points={"tp_btf:sched_switch": YES})
    runqlat = contract("runqlat", ("full", ["btf:vmlinux", "attach:tp_btf:sched_switch"]))
    found = asked(host(tmp_path, None), runqlat, now=now)
    assert found["btf"]["answer"] == "no"
    (change,) = found["changes"]
    assert (change["to"]["profile"], change["reason_code"]) == ("disabled", "EF_NO_BTF")


def test_an_image_that_cannot_be_read_makes_everything_unknown_and_never_yes(tmp_path: Path) -> None:
    root = host(tmp_path, None)
    (root / f"boot/vmlinuz-{RELEASE}").write_bytes(b"not a kernel" * 100)
    found = asked(root, UNLINKS, now=facts(attach_points={"fentry:do_unlinkat": YES}))
    assert found["btf"]["answer"] == "unknown" and "not a compression known here" in found["btf"]["evidence"]
    assert found["source"] is None
    assert found["profiles"]["file_unlinks"]["profile"] == "disabled"
    assert found["profiles"]["file_unlinks"]["reason_code"] == "EF_UNKNOWN"


def test_a_kernel_that_is_not_clear_is_said_and_nothing_is_foretold(tmp_path: Path) -> None:
    found = asked(tmp_path, UNLINKS)
    assert found["release"] is None and found["profiles"] == {} and found["changes"] == []
    assert found["btf"] == {"answer": "unknown", "evidence": found["chosen_by"]} and found["source"] is None
    assert "no kernel image" in found["chosen_by"]


def test_the_kernel_that_runs_already_changes_nothing(tmp_path: Path) -> None:
    root = host(tmp_path, kernel_btf())
    own = kernelimage.read_kernel(root / f"boot/vmlinuz-{RELEASE}").build_id
    # Its image would not tell that this kernel refuses the hook.
    now = facts(kernel={"release": RELEASE, "family": "6.99", "build_id": own}, attach_points={"fentry:vfs_unlink": NO})
    found = asked(root, UNLINKS, now=now)
    assert found["changes"] == [] and found["chosen_by"].endswith("runs already")
    assert found["profiles"]["file_unlinks"]["profile"] == "disabled"


def test_btf_that_breaks_off_is_unknown(tmp_path: Path) -> None:
    found = asked(host(tmp_path, kernel_btf()[:-40]), UNLINKS)
    assert found["btf"]["answer"] == "unknown"


def test_no_damage_to_image_or_configuration_costs_the_facts(tmp_path: Path) -> None:
    """Bytes are changed at random, from one seed: whatever they say, an answer comes back, and a wild yes never."""
    from tests.unit.test_nextkernel_image import bzimage, vmlinux

    chance = random.Random(3)
    kernel = vmlinux(kernel_btf())
    originals = [kernel, bzimage(gzip.compress(kernel), len(kernel)), bzimage(lzma.compress(kernel), len(kernel))]
    root = host(tmp_path, kernel_btf())
    path = root / f"boot/vmlinuz-{RELEASE}"
    answers = set()
    for turn in range(1500):
        data = bytearray(originals[turn % len(originals)])
        for _ in range(chance.randint(1, 12)):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        path.write_bytes(data[: chance.choice((len(data), chance.randrange(1, len(data))))])
        found = asked(root, UNLINKS, now=facts(attach_points={"fentry:vfs_unlink": YES}))
        answers.add(found["btf"]["answer"])
        assert found["btf"]["answer"] == "yes" or found["profiles"]["file_unlinks"]["profile"] == "disabled"
    assert answers == {"yes", "no", "unknown"}


def test_a_damaged_configuration_is_one_that_is_not_readable(tmp_path: Path) -> None:
    root = host(tmp_path, kernel_btf())
    (root / f"boot/config-{RELEASE}").write_bytes(gzip.compress(b"CONFIG_BPF_EVENTS=y\n" * 50)[:-20])
    assert nextkernel.read_config(root, RELEASE) is None


def lab_kernel(family: str) -> Path:
    images = sorted((ROOT / ".cache/lab/kernels").glob(f"{family}-*/vmlinuz"))
    if not images:
        pytest.skip(f"the lab's cache holds no kernel {family}; boot the lab once (python -m tests.lab up)")
    return images[0]


def test_between_real_kernels_do_unlinkat_goes_and_what_stays_stays(tmp_path: Path) -> None:
    """Debian's 6.1 has do_unlinkat, its 7.3 does not; the scheduler's tracepoints are in both."""
    image = lab_kernel("7.x")
    release = json.loads((image.parent / "about.json").read_text())["release"]
    (tmp_path / "boot").mkdir()
    shutil.copy(image, tmp_path / f"boot/vmlinuz-{release}")
    runqlat = contract("runqlat", ("full", ["btf:vmlinux", "prog_type:tracing", "attach:tp_btf:sched_switch"]))
    points = {"fentry:do_unlinkat": YES, "fentry:vfs_unlink": YES, "tp_btf:sched_switch": YES}
    found = asked(tmp_path, UNLINKS, runqlat, now=facts(attach_points=points))
    assert [one["feature"] for one in found["changes"]] == ["file_unlinks"]
    assert found["profiles"]["runqlat"]["profile"] == "full"
