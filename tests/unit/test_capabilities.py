"""Capability answers: the parsers on made files, the questions on this machine's own kernel."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils import bpfsys, btf, capabilities
from ansible_collections.ebpf.fleet.plugins.module_utils.hostfiles import kernel_family, read_os_release
from ansible_collections.ebpf.fleet.plugins.module_utils.profile import parse_requirement

VMLINUX = Path("/sys/kernel/btf/vmlinux")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="the kernel answers these questions to root only")
with_btf = pytest.mark.skipif(not VMLINUX.exists(), reason="this machine's kernel has no BTF to ask about")


def blob(types: bytes, strings: bytes) -> bytes:
    """A BTF blob of these sections."""
    sizes = struct.pack("=IIIII", 24, 0, len(types), len(types), len(strings))
    return struct.pack("=HBB", 0xEB9F, 1, 0) + sizes + types + strings


STRINGS = b"\0int\0btf_trace_x\0vfs_unlink\0s\0"
AT = {name: STRINGS.index(name.encode() + b"\0") for name in ("int", "btf_trace_x", "vfs_unlink", "s")}
TYPES = b"".join(
    [
        struct.pack("=IIII", AT["int"], 1 << 24, 4, 32),  # 1
        # 2: a struct with two members, so that the walk must step over them
        struct.pack("=III", AT["s"], 4 << 24 | 2, 8) + struct.pack("=IIIIII", 0, 1, 0, 0, 1, 32),
        struct.pack("=III", AT["btf_trace_x"], 8 << 24, 1),  # 3
        struct.pack("=III", 0, 13 << 24 | 1, 0) + struct.pack("=II", 0, 1),  # 4
        struct.pack("=III", AT["vfs_unlink"], 12 << 24, 4),  # 5
    ]
)


class TestBtf:
    def test_finds_ids_by_kind_and_name(self) -> None:
        wanted = [(btf.TYPEDEF, "btf_trace_x"), (btf.FUNC, "vfs_unlink")]
        assert btf.type_ids(blob(TYPES, STRINGS), wanted) == {wanted[0]: 3, wanted[1]: 5}

    def test_the_wrong_kind_is_not_found(self) -> None:
        assert btf.type_ids(blob(TYPES, STRINGS), [(btf.FUNC, "btf_trace_x"), (btf.FUNC, "nope")]) == {}

    def test_a_suffix_of_a_name_is_not_the_name(self) -> None:
        assert btf.type_ids(blob(TYPES, STRINGS), [(btf.FUNC, "unlink")]) == {}

    @pytest.mark.parametrize(
        "broken",
        [
            b"",
            b"\0" * 64,
            blob(TYPES, STRINGS)[:-1],
            blob(TYPES + struct.pack("=III", 0, 31 << 24, 0), STRINGS),
            blob(TYPES + b"\0\0", STRINGS),
        ],
    )
    def test_a_broken_blob_is_refused(self, broken: bytes) -> None:
        with pytest.raises(btf.BtfError):
            btf.type_ids(broken, [(btf.FUNC, "vfs_unlink")])

    @with_btf
    def test_agrees_with_bpftool_on_the_real_kernel(self) -> None:
        dump = subprocess.run(
            ["bpftool", "btf", "dump", "file", str(VMLINUX), "format", "raw"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        found = btf.type_ids(VMLINUX.read_bytes(), [(btf.TYPEDEF, "btf_trace_sched_switch"), (btf.FUNC, "vfs_unlink")])
        assert f"[{found[(btf.TYPEDEF, 'btf_trace_sched_switch')]}] TYPEDEF 'btf_trace_sched_switch'" in dump
        assert f"[{found[(btf.FUNC, 'vfs_unlink')]}] FUNC 'vfs_unlink'" in dump


class TestHostFiles:
    @pytest.mark.parametrize(
        ("release", "family"),
        [("6.1.0-31-cloud-amd64", "6.1"), ("5.10.0", "5.10"), ("7.3-rc1", "7.3"), ("next", None), ("", None)],
    )
    def test_kernel_family(self, release: str, family: str | None) -> None:
        assert kernel_family(release) == family

    def test_os_release_is_unquoted(self, tmp_path: Path) -> None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/os-release").write_text("# c\nID=\"rhel\"\nVERSION_ID='9.4'\nNAME=x\n")
        assert read_os_release(tmp_path) == {"id": "rhel", "version_id": "9.4"}

    def test_no_os_release_is_null(self, tmp_path: Path) -> None:
        assert read_os_release(tmp_path) == {"id": None, "version_id": None}

    def test_lockdown_mode(self, tmp_path: Path) -> None:
        folder = tmp_path / "sys/kernel/security"
        folder.mkdir(parents=True)
        (folder / "lockdown").write_text("none [integrity] confidentiality\n")
        (folder / "lsm").write_text("lockdown,capability,bpf\n")
        assert capabilities.read_lockdown(tmp_path)["mode"] == "integrity"
        assert capabilities.read_lsms(tmp_path) == ["lockdown", "capability", "bpf"]

    def test_what_cannot_be_read_is_null(self, tmp_path: Path) -> None:
        assert capabilities.read_lockdown(tmp_path)["mode"] is None
        assert capabilities.read_lsms(tmp_path) is None
        assert capabilities.read_config(tmp_path, "6.1") is None
        assert capabilities.read_cgroup(tmp_path) is None

    def test_config_of_boot(self, tmp_path: Path) -> None:
        (tmp_path / "boot").mkdir()
        (tmp_path / "boot/config-6.1").write_text("CONFIG_BPF_LSM=y\n# CONFIG_KPROBES is not set\n")
        found = capabilities.read_config(tmp_path, "6.1")
        assert found is not None
        assert (found["options"]["CONFIG_BPF_LSM"], found["options"]["CONFIG_KPROBES"]) == ("y", "n")

    def test_a_broken_config_is_passed_over(self, tmp_path: Path) -> None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/config.gz").write_bytes(b"no gzip")
        assert capabilities.read_config(tmp_path, "6.1") is None

    def test_cgroup_versions(self, tmp_path: Path) -> None:
        base = tmp_path / "sys/fs/cgroup"
        (base / "cpu").mkdir(parents=True)
        assert capabilities.read_cgroup(tmp_path) == "v1"
        (base / "unified").mkdir()
        (base / "unified/cgroup.controllers").write_text("")
        assert capabilities.read_cgroup(tmp_path) == "hybrid"
        (base / "cgroup.controllers").write_text("")
        assert capabilities.read_cgroup(tmp_path) == "v2"

    def test_systemd_is_installed_but_not_running(self, tmp_path: Path) -> None:
        (tmp_path / "usr/bin").mkdir(parents=True)
        (tmp_path / "usr/bin/systemctl").write_text("")
        found = capabilities.read_systemd(tmp_path)
        assert (found["installed"]["answer"], found["pid1"]["answer"]) == ("yes", "no")


class TestAttempt:
    @pytest.mark.parametrize(("number", "answer"), [(22, "no"), (2, "no"), (1, "unknown"), (12, "unknown")])
    def test_only_absence_is_no(self, number: int, answer: str) -> None:
        def refuse() -> int:
            raise OSError(number, "")

        found = capabilities.attempt(refuse, "asked")
        assert found["answer"] == answer
        assert capabilities.errno_name(number) in found["evidence"]

    def test_an_unknown_machine_is_unknown(self) -> None:
        def refuse() -> int:
            return bpfsys.syscall_number({})

        assert capabilities.attempt(refuse, "asked")["answer"] == "unknown"

    @pytest.mark.parametrize(
        ("log", "answer"),
        [
            ("invalid func unknown#181", "no"),
            ("0: (85) call x#58\nprogram of this type cannot use helper x#58", "no"),
            ("R1 type=ctx expected=map_ptr", "yes"),
            ("something that a later kernel says", "unknown"),
            ("", "unknown"),
        ],
    )
    def test_helper_answers_need_known_words(self, log: str, answer: str) -> None:
        assert capabilities._helper_answer(OSError(22, ""), log, "x")["answer"] == answer


TEXTS = (
    "attach:tp_btf:sched_switch",
    "attach:tp_btf:no_such_hook",
    "attach:raw_tp:sched_switch",
    "attach:fentry:vfs_unlink",
    "attach:kprobe:vfs_unlink",
    "helper:tracing:ringbuf_reserve",
    "helper:socket_filter:override_return",
    "helper:kprobe:probe_write_user",
)


@pytest.fixture(scope="module")
def facts() -> dict:
    return capabilities.gather([parse_requirement(text) for text in TEXTS])


@as_root
@with_btf
class TestThisKernel:
    def test_what_the_loader_needs_is_there(self, facts: dict) -> None:
        assert facts["btf"]["state"] == "vmlinux"
        for name in ("tracing", "raw_tracepoint", "kprobe"):
            assert facts["program_types"][name]["answer"] == "yes", facts["program_types"][name]
        for name in ("percpu_array", "ringbuf", "task_storage", "array_of_maps", "hash", "lru_hash"):
            assert facts["map_types"][name]["answer"] == "yes", facts["map_types"][name]

    def test_hooks(self, facts: dict) -> None:
        points = facts["attach_points"]
        assert points["tp_btf:sched_switch"]["answer"] == "yes"
        assert points["raw_tp:sched_switch"]["answer"] == "yes"
        assert points["tp_btf:no_such_hook"]["answer"] == "no"

    def test_fentry_and_kprobe_answer_as_the_kernel_does(self, facts: dict) -> None:
        """A symbol in BTF is not enough: this asks by loading and by opening the event."""
        pmu = Path("/sys/bus/event_source/devices/kprobe/type")
        assert (facts["attach_points"]["kprobe:vfs_unlink"]["answer"] == "yes") is pmu.exists()
        fentry = facts["attach_points"]["fentry:vfs_unlink"]
        assert fentry["answer"] == "yes" or "EPERM" in fentry["evidence"] or "ENOTSUPP" in fentry["evidence"]

    def test_helpers(self, facts: dict) -> None:
        helpers = facts["helpers"]
        assert helpers["tracing:ringbuf_reserve"]["answer"] == "yes"
        assert helpers["socket_filter:override_return"]["answer"] == "no"

    def test_a_helper_that_makes_the_kernel_warn_is_not_asked(self, facts: dict) -> None:
        assert facts["helpers"]["kprobe:probe_write_user"]["answer"] == "unknown"

    def test_no_descriptor_is_left_open(self) -> None:
        before = sorted(os.listdir("/proc/self/fd"))
        capabilities.gather([parse_requirement(text) for text in TEXTS])
        assert sorted(os.listdir("/proc/self/fd")) == before

    def test_memlock_is_put_back(self) -> None:
        before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        capabilities.gather([])
        assert resource.getrlimit(resource.RLIMIT_MEMLOCK) == before

    def test_a_program_is_found_by_its_name(self) -> None:
        fd = bpfsys.prog_load(bpfsys.ProgramSpec(type=17))
        try:
            assert "probe" in {one.name for one in bpfsys.own_programs("probe")}
        finally:
            os.close(fd)

    def test_hidden_btf_is_missing_and_tracing_is_no(self) -> None:
        """An empty tmpfs over the folder is what a kernel without BTF looks like."""
        code = (
            "from ansible_collections.ebpf.fleet.plugins.module_utils import capabilities as c\n"
            "f = c.gather([])\n"
            "print(f['btf']['state'], f['program_types']['tracing']['answer'], f['map_types']['ringbuf']['answer'])"
        )
        hide = 'mount -t tmpfs none /sys/kernel/btf && exec "$@"'
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", hide, "sh", sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == ["missing", "no", "yes"]

    def test_without_root_the_answers_are_unknown_not_no(self) -> None:
        code = (
            "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "from ansible_collections.ebpf.fleet.plugins.module_utils import capabilities as c\n"
            "f = c.gather([])\n"
            "print(f['privileged'], f['program_types']['kprobe']['answer'], f['own_programs']['programs'])"
        )
        # The imports come before the change of user, as that user may not read this checkout.
        code = code.replace(
            "import os;", "import ansible_collections.ebpf.fleet.plugins.module_utils.capabilities, os;"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == ["False", "unknown", "None"]


def test_host_side_code_compiles_for_the_oldest_python() -> None:
    """Syntax that 3.8 lacks would stop a module before its first message."""
    import ast

    folder = Path(capabilities.__file__).parent
    for name in ("bpfsys", "btf", "bpfnames", "profile", "capabilities", "hostfiles", "observation", "kill"):
        ast.parse((folder / f"{name}.py").read_text(), feature_version=(3, 8))
