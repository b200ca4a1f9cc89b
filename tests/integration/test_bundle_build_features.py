# SPDX-License-Identifier: GPL-3.0-or-later
"""What bundle_build takes and refuses beyond our own objects: real compilers, real bpftool, real objects of others."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import platform
import shutil
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import files as bd
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.collector_files import collector_files
from ansible_collections.ebpf.fleet.plugins.module_utils.facts.kernelfacts import read_build_id

from tests.integration.release_host import CREATED, REPO, make_key, run_module

pytestmark = pytest.mark.apart

VMLINUX = Path("/sys/kernel/btf/vmlinux")
SOURCE = """
#include "ef.h"
char LICENSE[] SEC("license") = "GPL";
struct ef_key {
	__u32 cpu;
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 64);
	__type(key, struct ef_key);
	__type(value, __u64);
} ef_count_map SEC(".maps");

SEC("raw_tp/sched_switch")
int ef_probe(void *ctx)
{
	struct ef_key key = {.cpu = bpf_get_smp_processor_id()};
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 one = BPF_CORE_READ(task, pid) != 0;

	bpf_core_type_id_local(struct ef_key);
	ef_count(EF_PRODUCED);
	bpf_map_update_elem(&ef_count_map, &key, &one, BPF_ANY);
	return 0;
}
"""
WORDS = {"scope": "global", "eviction": "none", "cardinality": "Few.", "why": "Fast."}
CONTRACT: dict[str, Any] = {
    "schema": "ebpf.fleet/contract/v1",
    "feature": "probe",
    "summary": "A feature to be broken.",
    "owner": {"team": "t", "contact": "t@example.org"},
    "data_path": "metrics",
    "lifetime": "permanent",
    "cost_order": 1,
    "budget": {
        "cpu_millicores": 10,
        "map_memory_bytes": 65536,
        "event_rate_per_second": 0,
        "drop_ratio_ppm": 0,
    },
    "signals": [
        {
            "name": "switches",
            "kind": "counters",
            "help": "Switches.",
            "map": "ef_count_map",
            "key": "ef_key",
            "consumer": {"alert": "A", "runbook": "r.md"},
            "retention_days": 1,
            "sample_every": 1,
            "backpressure": "aggregate",
        }
    ],
    "maps": [
        {**WORDS, "name": "ef_counters", "type": "percpu_array", "max_entries": 4, "scope": "per_cpu"},
        {**WORDS, "name": "ef_config", "type": "array", "max_entries": 1},
        {**WORDS, "name": "ef_moment", "type": "percpu_array", "max_entries": 1, "scope": "per_cpu"},
        {**WORDS, "name": "ef_count_map", "type": "percpu_hash", "max_entries": 64, "scope": "per_cpu"},
    ],
    "variants": [
        {
            "name": "reduced",
            "programs": ["ef_probe"],
            "requires": [
                "btf:any",
                "prog_type:raw_tracepoint",
                "attach:raw_tp:sched_switch",
                "helper:raw_tracepoint:probe_read_kernel",
            ],  # fmt: skip
        }
    ],
}
BCC = {"programs": ["ef_probe"], "requires": ["prog_type:raw_tracepoint", "attach:raw_tp:sched_switch"]}
BCC_SOURCE = "int ef_probe(struct bpf_raw_tracepoint_args *ctx) {\n\treturn 0;\n}\n"


def write_feature(root: Path, contract: dict[str, Any], source: str | None = SOURCE) -> Path:
    folder = root / "features" / contract["feature"]
    folder.mkdir(parents=True)
    (folder / "contract.yml").write_text(yaml.safe_dump(contract, sort_keys=False))
    if source is not None:
        (folder / f"{contract['feature']}.bpf.c").write_text(source)
    return folder


def build(root: Path, loader: Path, **changes: Any) -> dict[str, Any]:
    arguments = {
        "source": str(REPO / "bpf"),
        "loader": {platform.machine(): str(loader)},
        "features_dirs": [str(root / "features")],
        "output": str(root / "b.tar"),
        "version": "1.0.0",
        "sequence": 1,
        "created": CREATED,
        "signing_key": str(make_key()),
        **changes,
    }
    result, done = run_module("bundle_build", {key: value for key, value in arguments.items() if value is not None})
    assert result is not None, done.stderr
    return result


def refused(root: Path, loader: Path, code: str, *words: str, **changes: Any) -> str:
    """The message of a refusal, which changed nothing."""
    before = sorted(root.rglob("*"))
    answer = build(root, loader, **changes)
    assert answer.get("failed") and answer["reason_code"] == code, answer
    assert sorted(root.rglob("*")) == before
    for word in words:
        assert word in answer["msg"], answer["msg"]
    return str(answer["msg"])


@pytest.mark.slow
def test_a_feature_that_counts_is_taken(tmp_path: Path, loader: Path) -> None:
    write_feature(tmp_path, CONTRACT)
    answer = build(tmp_path, loader)
    assert answer.get("features") == {"probe": ["reduced"]}, answer
    assert "btf/index.json" not in bd.load_bundle(answer["output"]).members


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("raw_tp/sched_switch", "xdp", ["variants[0].programs", "in section 'xdp'", "the loader attaches only"]),
        ("raw_tp/sched_switch", "tc", ["variants[0].programs", "in section 'tc'", "attaches only"]),
        ("raw_tp/sched_switch", "cgroup_skb/egress", ["in section 'cgroup_skb/egress'", "attaches only"]),
        ("raw_tp/sched_switch", "fmod_ret/security_file_open", ["changes what the kernel does", "take it out"]),
        ("raw_tp/sched_switch", "tp_btf/sched_switch", ["lacks 'btf:vmlinux'", "lacks 'attach:tp_btf:sched_switch'"]),
        ("raw_tp/sched_switch", "kprobe/vfs_unlink", ["lacks 'attach:kprobe:vfs_unlink'", "remove it"]),
        ("raw_tp/sched_switch", "lsm/file_open", ["an LSM program on the metrics data path", "'data_path: policy'"]),
        ("raw_tp/sched_switch", "?raw_tp/sched_switch", ["remove the '?'"]),
        ("int ef_probe(", "int probe(", ["'ef_probe' is not in the object", "the object also holds 'probe'"]),
        ("__type(value, __u64)", "__uint(value_size, 24)", ["signals[0].map", "values of 24 bytes", "one u64"]),
        ("max_entries, 64", "max_entries, 128", ["maps[3].max_entries", "64 here and 128", "make them equal"]),
        ("__u32 cpu;\n", "__u32 cpu;\n\t__u64 more[2];\n", ["signals[0].key", "neither a number nor text"]),
        ("= \"GPL\"", "= \"Proprietary\"", ["variants[0]", "licence", "declare a GPL licence"]),
        ("} ef_count_map SEC", "} ef_count_map SEC(\".maps\");\nstruct {\n__uint(type, BPF_MAP_TYPE_RINGBUF);\n"
         "__uint(max_entries, 4096);\n} ef_more SEC", ["'ef_more' of variant 'reduced' is not declared",
                                                       "lacks 'map_type:ringbuf'"]),
    ],
)  # fmt: skip
@pytest.mark.sample(4)
def test_an_object_that_the_contract_does_not_tell_is_refused(
    tmp_path: Path, loader: Path, old: str, new: str, words: list[str]
) -> None:
    assert old in SOURCE
    folder = write_feature(tmp_path, CONTRACT, SOURCE.replace(old, new, 1))
    message = refused(tmp_path, loader, "EF_CONTRACT_MALFORMED", *words)
    assert str(folder / "contract.yml") in message


def policy(**changes: Any) -> dict[str, Any]:
    variant = {
        "name": "full",
        "programs": ["ef_probe"],
        "requires": ["btf:vmlinux", "prog_type:lsm", "attach:lsm:file_open", "helper:lsm:probe_read_kernel"],
    }
    budget = {**CONTRACT["budget"], "event_rate_per_second": 10}
    return {**CONTRACT, "data_path": "policy", "mode": "observe", "budget": budget, "variants": [variant], **changes}


@pytest.mark.slow
def test_an_lsm_program_must_be_proven_to_allow(tmp_path: Path, loader: Path) -> None:
    observing = SOURCE.replace("raw_tp/sched_switch", "lsm/file_open")
    write_feature(tmp_path / "good", policy(), observing)
    answer = build(tmp_path / "good", loader)
    assert answer.get("features") == {"probe": ["full"]}, answer
    denying = observing.replace("return 0;", "return one ? -1 : 0;")
    write_feature(tmp_path / "bad", policy(), denying)
    refused(tmp_path / "bad", loader, "EF_CONTRACT_MALFORMED", "variants[0].programs",
            "ef_probe is not proven to return 0 always", "end every path with 'return 0'")  # fmt: skip
    unsaid = policy()
    del unsaid["mode"]
    write_feature(tmp_path / "unsaid", unsaid, observing)
    refused(tmp_path / "unsaid", loader, "EF_CONTRACT_MALFORMED", "mode: is missing", "'mode: observe'")


# BCC


def test_the_bcc_source_and_the_collector_go_along(tmp_path: Path, loader: Path) -> None:
    folder = write_feature(tmp_path, {**CONTRACT, "bcc": BCC})
    (folder / "bcc.c").write_text(BCC_SOURCE)
    members = bd.load_bundle(build(tmp_path, loader)["output"]).members
    assert members["features/probe/bcc.c"].data.decode() == BCC_SOURCE
    collector = {path: (each.data, each.mode) for path, each in members.items() if path.startswith("collector/")}
    assert collector == {path: (data, 0o644) for path, data in collector_files(REPO).items()}
    assert collector["collector/bcc.py"][0] == (REPO / "collectors/bcc.py").read_bytes()
    alone = shutil.copytree(REPO / "bpf", tmp_path / "alone/bpf", ignore=shutil.ignore_patterns("features", "loader"))
    message = refused(tmp_path, loader, "EF_ARGUMENT", "collectors/bcc.py does not exist", source=str(alone))
    assert "whole checkout" in message


@pytest.mark.parametrize(
    ("bcc", "source", "words"),
    [
        (None, BCC_SOURCE, ["contract.yml: bcc: is missing, but there is a bcc.c", "or remove the file"]),
        (BCC, None, ["bcc.c: bcc: does not exist, but the contract has 'bcc'", "write it"]),
        (BCC, "static " + BCC_SOURCE, ["bcc.programs[0]", "no function 'ef_probe'", "not static"]),
        (BCC, "/* " + BCC_SOURCE + " */", ["bcc.programs[0]", "no function 'ef_probe'"]),
        (BCC, BCC_SOURCE.replace("ef_probe(", "ef_probes("), ["bcc.programs[0]", "no function 'ef_probe'"]),
        ({**BCC, "requires": ["btf:any", *BCC["requires"]]}, BCC_SOURCE, ["bcc.requires", "'btf:any'", "headers"]),
    ],
)
@pytest.mark.sample(2)
def test_a_bcc_fallback_that_does_not_hold_is_refused(
    tmp_path: Path, loader: Path, bcc: Any, source: str | None, words: list[str]
) -> None:
    folder = write_feature(tmp_path, {**CONTRACT, "bcc": bcc} if bcc else CONTRACT)
    if source is not None:
        (folder / "bcc.c").write_text(source)
    refused(tmp_path, loader, "EF_CONTRACT_MALFORMED", *words)


# Objects of others


def compiled(root: Path, loader: Path) -> bytes:
    """The object of the feature as another build system would have made it."""
    write_feature(root, CONTRACT)
    return bd.load_bundle(build(root, loader)["output"]).members["features/probe/reduced.bpf.o"].data


@pytest.mark.slow
def test_an_object_of_others_goes_in_byte_for_byte(tmp_path: Path, loader: Path) -> None:
    data = compiled(tmp_path / "theirs", loader)
    folder = write_feature(tmp_path, {**CONTRACT, "origin": "third_party"}, None)
    refused(tmp_path, loader, "EF_CONTRACT_MALFORMED", "reduced.bpf.o: variants[0]: does not exist",
            "docs/third-party.md", features_dirs=[str(folder)])  # fmt: skip
    (folder / "reduced.bpf.o").write_bytes(data)
    answer = build(tmp_path, loader, features_dirs=[str(folder)])
    assert bd.load_bundle(answer["output"]).members["features/probe/reduced.bpf.o"].data == data
    (tmp_path / "b.tar").unlink()
    (folder / "other.bpf.o").write_bytes(data)
    refused(tmp_path, loader, "EF_CONTRACT_MALFORMED", "other.bpf.o", "no variant is named 'other'",
            features_dirs=[str(folder)])  # fmt: skip
    (folder / "other.bpf.o").rename(folder / "probe.bpf.c")
    refused(tmp_path, loader, "EF_CONTRACT_MALFORMED", "a source that nothing compiles", features_dirs=[str(folder)])
    (folder / "probe.bpf.c").unlink()
    (folder / "reduced.bpf.o").write_bytes(data[:200])
    refused(tmp_path, loader, "EF_BUILD", "cannot be read as a BPF object", features_dirs=[str(folder)])
    (folder / "reduced.bpf.o").write_bytes(bytes(8 * 1024 * 1024 + 1))
    refused(tmp_path, loader, "EF_CONTRACT_MALFORMED", "more than 8388608 bytes", features_dirs=[str(folder)])


def test_an_object_in_a_feature_of_ours_is_a_mistake(tmp_path: Path, loader: Path) -> None:
    folder = write_feature(tmp_path, CONTRACT)
    (folder / "reduced.bpf.o").write_bytes(b"old")
    refused(tmp_path, loader, "EF_CONTRACT_MALFORMED", "reduced.bpf.o: origin: is a compiled object", "remove it")


# Minimal BTF


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    """Whole BTF of kernels, as it is collected: this machine's, under several names."""
    # Of the kernel: nothing else has whole BTF; the lab's guests have it.
    if not VMLINUX.exists():
        pytest.skip(f"{VMLINUX} is not there: this kernel does not tell its types")
    folder = tmp_path / "btf"
    (folder / "debian/12/arm64").mkdir(parents=True)
    data = VMLINUX.read_bytes()
    (folder / "6.1.0-9-amd64.btf").write_bytes(data)
    (folder / "6.1.0-9-amd64.build-id").write_text("A" * 40 + "\n")
    (folder / "6.1.0-10-amd64.btf").write_bytes(data)
    with tarfile.open(folder / "debian/12/arm64/6.1.0-9-arm64.btf.tar.xz", "w:xz", preset=0) as tar:
        info = tarfile.TarInfo("6.1.0-9-arm64.btf")
        info.size = len(data)
        tar.addfile(info, BytesIO(data))
    return folder


@pytest.mark.slow
def test_the_bundle_gets_what_its_objects_need_of_each_kernel(tmp_path: Path, loader: Path, kernels: Path) -> None:
    write_feature(tmp_path, CONTRACT)
    answer = build(tmp_path, loader, btf_dirs=[str(kernels)])
    found = bd.load_bundle(answer["output"])
    told = [(entry["machine"], entry["release"], entry["build_id"]) for entry in found.btf_index]
    assert told == [
        ("aarch64", "6.1.0-9-arm64", None),
        (platform.machine(), "6.1.0-10-amd64", None),
        (platform.machine(), "6.1.0-9-amd64", "a" * 40),
    ]
    assert answer["btf"] == found.btf_index
    files = {entry["file"] for entry in found.btf_index}
    assert len(files) == 2, "the same bytes of one machine are in the bundle once"
    for path in files:
        assert len(found.members[path].data) < 65536
        (tmp_path / "minimal.btf").write_bytes(found.members[path].data)
        dump = ["/usr/sbin/bpftool", "btf", "dump", "file", str(tmp_path / "minimal.btf")]
        said = subprocess.run(dump, check=True, capture_output=True, text=True).stdout
        assert "STRUCT 'task_struct'" in said and "'pid'" in said
    again = build(tmp_path, loader, btf_dirs=[str(kernels)], output=str(tmp_path / "again.tar"))
    assert again["digest"] == answer["digest"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("6.9.0.btf", b"no BTF", ["6.9.0.btf", "is not BTF", "docs/btf.md"]),
        ("6.9.0.btf", bytes(64), ["6.9.0.btf", "not raw little-endian BTF"]),
        ("6.9.0.btf", "cut", ["6.9.0.btf", "is cut off"]),
        ("6.9.0.btf.tar.xz", b"no archive", ["6.9.0.btf.tar.xz", "cannot be read"]),
        ("6.9.0.btf.tar.xz", lzma.compress(bytes(10240)), ["holds no file that ends in .btf"]),
        ("a b.btf", b"", ["'a b' is not a kernel release", "as uname -r prints it"]),
        ("6.1.0-9-amd64.build-id", b"12", ["6.1.0-9-amd64.build-id", "40 hex digits", "/sys/kernel/notes"]),
        ("6.1.0-9-amd64.machine", b"x86-64!", ["6.1.0-9-amd64.machine", "not a machine", "uname -m"]),
        ("sub/6.1.0-10-amd64.btf", b"twin", ["same kernel as", "remove one"]),
    ],
)
@pytest.mark.sample(3)
@pytest.mark.slow
def test_btf_that_cannot_be_used_is_refused_by_name(
    tmp_path: Path, loader: Path, kernels: Path, name: str, content: Any, words: list[str]
) -> None:
    write_feature(tmp_path, CONTRACT)
    (kernels / name).parent.mkdir(exist_ok=True)
    (kernels / name).write_bytes(VMLINUX.read_bytes()[:100000] if content == "cut" else content)
    refused(tmp_path, loader, "EF_ARGUMENT", "btf_dirs", *words, btf_dirs=[str(kernels)])


def test_btf_that_only_bpftool_finds_damaged_is_refused_by_name(tmp_path: Path, loader: Path, kernels: Path) -> None:
    write_feature(tmp_path, CONTRACT)
    data = bytearray((kernels / "6.1.0-10-amd64.btf").read_bytes())
    data[24:4024] = b"\xff" * 4000
    (kernels / "6.1.0-10-amd64.btf").write_bytes(data)
    refused(tmp_path, loader, "EF_ARGUMENT", "6.1.0-10-amd64.btf", "bpftool cannot reduce it", btf_dirs=[str(kernels)])


def test_folders_without_btf_and_a_missing_bpftool_are_said(
    tmp_path: Path, loader: Path, kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_feature(tmp_path, CONTRACT)
    (tmp_path / "empty").mkdir()
    refused(tmp_path, loader, "EF_ARGUMENT", "empty: holds no BTF", btf_dirs=[str(tmp_path / "empty")])
    refused(tmp_path, loader, "EF_ARGUMENT", "nowhere is not a folder", btf_dirs=[str(tmp_path / "nowhere")])
    # The search adds the folders of superusers, so this machine's must be hidden from the real function.
    from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
    from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import minimal_btf as bundle_btf

    monkeypatch.setattr(bundle_btf, "TOOL_FOLDERS", (str(tmp_path / "empty"),))
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(FleetError) as caught:
        bundle_btf.bpftool()
    assert caught.value.code == "EF_NO_TOOL" and "install it" in caught.value.message


def test_what_the_script_collects_on_a_host_is_what_the_build_takes(tmp_path: Path, loader: Path) -> None:
    # Of the kernel: nothing else has whole BTF; the lab's guests have it.
    if not VMLINUX.exists():
        pytest.skip(f"{VMLINUX} is not there: this kernel does not tell its types")
    (tmp_path / "btf").mkdir()
    script = (REPO / "tools/collect_btf.sh").read_bytes()
    packed = subprocess.run(["sh", "-s"], input=script, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(packed)) as tar:
        # Debian 12's Python does not know filters yet, and newer ones warn of an archive that is taken without one.
        tar.extractall(tmp_path / "btf", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    write_feature(tmp_path, CONTRACT)
    here = os.uname()
    [entry] = build(tmp_path, loader, btf_dirs=[str(tmp_path / "btf")])["btf"]
    build_id = read_build_id(Path("/"))
    assert (entry["machine"], entry["release"], entry["build_id"]) == (here.machine, here.release, build_id)


# The matrix


def matrix_of(bundle: bd.Bundle) -> dict[str, Any]:
    reached = {
        "profile": "disabled",
        "variant": None,
        "reason_code": "EF_NO_BTF",
        "reason": "no types",
        "sentence": "s",
    }
    return {
        "schema": "ebpf.fleet/matrix/v1",
        "bundle": bundle.manifest.doc["bundle"],
        "digest": bundle.manifest.digest,
        "objects": {
            path: hashlib.sha256(member.data).hexdigest()
            for path, member in bundle.members.items()
            if path.endswith(".bpf.o")
        },
        "hosts": {
            "k61n": {
                "kernel": {"release": "6.1.0-9-amd64", "family": "6.1"},
                "family": "6.1",
                "flavour": "cloud",
                "distro": "debian 12",
                "btf": "missing",
                "features": {
                    "probe": {
                        "predicted": reached,
                        "reached": reached,
                        "equal": True,
                        "variants": {"reduced": {"loads": False, "attaches": None, "errno_name": None,
                                                 "reason_code": "EF_NO_BTF", "reason": "no types", "programs": []}},
                    }
                },
            }
        },
        "differences": [],
    }  # fmt: skip


@pytest.fixture
def measured(tmp_path: Path, loader: Path) -> dict[str, Any]:
    """The matrix of a bundle that was built before."""
    write_feature(tmp_path, CONTRACT)
    return matrix_of(bd.load_bundle(build(tmp_path, loader, output=str(tmp_path / "before.tar"))["output"]))


def test_a_matrix_goes_in_and_tells_the_compatibility(tmp_path: Path, loader: Path, measured: dict[str, Any]) -> None:
    (tmp_path / "matrix.json").write_text(json.dumps(measured, indent=2))
    answer = build(tmp_path, loader, matrix=str(tmp_path / "matrix.json"))
    found = bd.load_bundle(answer["output"])
    assert json.loads(found.members["compatibility/matrix.json"].data) == measured
    known = found.manifest.doc["compatibility"]
    assert known["known_disabled"] == [{"family": "6.1", "feature": "probe", "reason_code": "EF_NO_BTF"}]
    assert answer["compatibility"] == known and len(known["summary"]) == 1
    refused(tmp_path, loader, "EF_ARGUMENT", "beside 'matrix'", matrix=str(tmp_path / "matrix.json"),
            compatibility={"summary": [], "known_disabled": []})  # fmt: skip


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("schema", "v0", ["schema", "is not ebpf.fleet/matrix/v1", "make test-matrix"]),
        ("objects", None, ["objects: is missing"]),
        ("objects.features/probe/reduced.bpf.o", "0" * 64, ["objects", "was measured with SHA-256 000000000000"]),
        ("objects.features/probe/other.bpf.o", "0" * 64, ["other.bpf.o was measured, but is not in this bundle"]),
        ("hosts", {}, ["hosts", "at least one entry"]),
        ("hosts.k61n.features.runqlat", {}, ["hosts.k61n.features", "runqlat"]),
        ("hosts.k61n.features.probe.variants.full", {}, ["hosts.k61n.features.probe.variants", "'full'"]),
        ("hosts.k61n.features.probe.reached", {"profile": "full", "variant": "x"}, ["reached.variant", "'x'"]),
        ("hosts.k61n.features.probe.reached", None, ["probe.reached", "no profile"]),
        ("differences", [{"host": "k61n", "feature": "probe"}], ["differences", "k61n probe", "measure again"]),
        ("hosts.k61n.load", 0.5, ["document", "0.5", "integer"]),
    ],
)
@pytest.mark.slow
def test_a_matrix_of_something_else_is_refused(
    tmp_path: Path, loader: Path, measured: dict[str, Any], path: str, value: Any, words: list[str]
) -> None:
    place: Any = measured
    parents, last = path.split(".")[:-1], path.split(".")[-1]
    if path.startswith("objects."):
        parents, last = ["objects"], path.partition(".")[2]
    for part in parents:
        place = place[part]
    place[last] = value
    if value is None:
        del place[last]
    (tmp_path / "matrix.json").write_text(json.dumps(measured))
    refused(tmp_path, loader, "EF_ARGUMENT", "matrix", "matrix.json", *words, matrix=str(tmp_path / "matrix.json"))


def test_what_is_no_matrix_is_refused(tmp_path: Path, loader: Path) -> None:
    write_feature(tmp_path, CONTRACT)
    (tmp_path / "matrix.json").write_text("[1, 2")
    refused(tmp_path, loader, "EF_ARGUMENT", "cannot be read as JSON", matrix=str(tmp_path / "matrix.json"))
    refused(tmp_path, loader, "EF_ARGUMENT", "cannot be read as JSON", matrix=str(tmp_path / "none.json"))


# make


def make(stage: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "-C", str(stage), "features", f"BUILD={stage / 'out'}", *options]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    shutil.copytree(REPO / "bpf/include", tmp_path / "include")
    shutil.copy(REPO / "bpf/Makefile", tmp_path)
    return tmp_path


def test_make_reads_variants_however_they_are_written(stage: Path) -> None:
    folder = write_feature(stage, CONTRACT)
    text = (folder / "contract.yml").read_text()
    head = text[: text.index("variants:")]
    (folder / "contract.yml").write_text(
        head + 'variants:\n# first\n- programs: [ef_probe]\n  name: "one"\n- name: two\n'
    )
    done = make(stage, "-j4")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (stage / "out/features/probe").iterdir()) == ["one.bpf.o", "two.bpf.o"]


def test_make_says_what_is_missing_and_copies_what_others_compiled(stage: Path) -> None:
    folder = write_feature(stage, CONTRACT, None)
    done = make(stage)
    assert done.returncode != 0 and "reduced.bpf.o" in done.stderr and "docs/third-party.md" in done.stderr
    (folder / "reduced.bpf.o").write_bytes(b"theirs")
    done = make(stage)
    assert done.returncode == 0, done.stderr
    assert (stage / "out/features/probe/reduced.bpf.o").read_bytes() == b"theirs"
    (folder / "contract.yml").write_text("variants: [{name: reduced}]\n")
    done = make(stage)
    assert done.returncode != 0 and "names no variant that make can read" in done.stderr
    assert "- name: NAME" in done.stderr and "features/probe/contract.yml" in done.stderr
