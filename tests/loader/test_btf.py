# SPDX-License-Identifier: GPL-3.0-or-later
"""Minimal BTF out of the bundle, on this machine's kernel with its own BTF hidden."""

from __future__ import annotations

import json
import os
import platform
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

import pytest

from tests.loader.bundles import Bundle, Trust, canonical
from tests.loader.objects import HIDE_BTF, bundle_of, check, compile_source, contract, elsewhere, say_notes, variant
from tests.loader.service import Service, feature_of, wait_for

MACHINE = platform.machine()
RELEASE = platform.release()
FILE = f"btf/{MACHINE}/this.btf"
INDEX = "btf/index.json"
OTHER_ID = "00" * 20

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/sys/kernel/btf/vmlinux"),
    reason="needs root and a kernel with BTF, which it hides in a mount namespace of its own",
)


def own_build_id() -> str:
    """The build id by file(1)'s kin, readelf, over the notes as an ELF-less blob: by hand."""
    data = Path("/sys/kernel/notes").read_bytes()
    at = data.index(b"GNU\0") - 12
    _, size, kind = struct.unpack_from("=III", data, at)
    assert (size, kind) == (20, 3)
    return data[at + 16 : at + 36].hex()


def entry(**changes: Any) -> dict[str, Any]:
    return {"machine": MACHINE, "release": RELEASE, "build_id": own_build_id(), "file": FILE, **changes}


def index(*entries: dict[str, Any]) -> bytes:
    return canonical({"schema": "ebpf.fleet/btf-index/v1", "entries": list(entries)})


def note(owner: bytes, kind: int, data: bytes) -> bytes:
    """An ELF note, padded."""

    def pad(text: bytes) -> bytes:
        return text + b"\0" * (-len(text) % 4)

    return struct.pack("=III", len(owner), len(data), kind) + pad(owner) + pad(data)


@pytest.fixture(scope="module")
def minimal_btf(feature_objects: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What bpftool makes of this kernel's BTF for the features' objects."""
    target = tmp_path_factory.mktemp("btf") / "this.btf"
    objects = [str(feature_objects / name / "reduced.bpf.o") for name in ("exec_events", "runqlat")]
    subprocess.run(["bpftool", "gen", "min_core_btf", "/sys/kernel/btf/vmlinux", str(target), *objects], check=True)
    return target.read_bytes()


def relocating(objects: Path, name: str) -> tuple[Any, dict[str, bytes]]:
    """A feature whose reduced variant only relocates: it needs any BTF, not the kernel's own."""
    document, files = feature_of(objects, name)
    for each in document["variants"]:
        if each["name"] == "reduced":
            each["requires"] = [text.replace("btf:vmlinux", "btf:any") for text in each["requires"]]
    return document, files


@pytest.fixture
def bundle(tmp_path: Path, trust: Trust, feature_objects: Path, minimal_btf: bytes) -> Bundle:
    """A bundle with this kernel's minimal BTF in it, and no index yet."""
    made = bundle_of(
        tmp_path, trust, **{name: relocating(feature_objects, name) for name in ("exec_events", "runqlat")}
    )
    made.replace(FILE, minimal_btf)
    return made


def reached(document: dict[str, Any], name: str = "runqlat") -> tuple[str, str]:
    feature = document["features"][name]
    return feature["profile"], feature["reason_code"]


def reason(document: dict[str, Any], name: str = "runqlat") -> str:
    return str(document["features"][name]["variants"]["reduced"]["reason"])


# ---- the right one ----


def test_hidden_btf_is_replaced_by_the_bundles(loader: Path, bundle: Bundle, trust: Trust) -> None:
    bundle.replace(INDEX, index(entry()))
    own = check(loader, bundle, trust, "--attach")
    found = check(loader, bundle, trust, "--attach", prefix=elsewhere(HIDE_BTF))
    assert (own["btf"], own["btf_file"], own["kernel"]["btf"]) == ("vmlinux", None, "vmlinux")
    assert (found["btf"], found["btf_file"], found["kernel"]["btf"]) == ("bundled", FILE, "bundled")
    for name in ("exec_events", "runqlat"):
        variants = found["features"][name]["variants"]
        assert reached(found, name) == ("reduced", "EF_NO_BTF")
        assert variants["full"]["reason_code"] == "EF_NO_BTF" and not variants["full"]["loads"]
        assert variants["reduced"]["loads"] and variants["reduced"]["attaches"]
        # Equal tags are equal instructions: every field, and every question
        # whether a field or type exists, was answered as by the whole BTF.
        with_whole = [each["tag"] for each in own["features"][name]["variants"]["reduced"]["programs"]]
        assert [each["tag"] for each in variants["reduced"]["programs"]] == with_whole


@pytest.fixture
def start_hidden(loader: Path, tmp_path: Path, trust: Trust) -> Iterator[Callable[[Bundle], Service]]:
    """Start a service behind a mount that hides the kernel's BTF; stops it at the end."""
    started: list[Service] = []

    def start(bundle: Bundle) -> Service:
        service = Service(loader, tmp_path / "host", bundle, trust, prefix=elsewhere(HIDE_BTF))
        service.want("exec_events", "runqlat")
        started.append(service)
        service.start_settled()
        return service

    yield start
    for service in started:
        service.stop()


def test_the_service_delivers_over_the_bundles_btf(
    start_hidden: Callable[[Bundle], Service], bundle: Bundle, tmp_path: Path
) -> None:
    bundle.replace(INDEX, index(entry()))
    service = start_hidden(bundle)
    program = tmp_path / "ef_test_min_btf"
    shutil.copy("/bin/true", program)
    child = subprocess.Popen([str(program)])
    child.wait()

    def mine() -> list[dict[str, Any]]:
        return [each for each in service.events() if each["comm"] == program.name[:15]]

    event = wait_for(mine, "the event")[0]
    assert event["pid"] == child.pid and event["uid"] == 0
    status = service.now()
    assert status["kernel"]["btf"] == "bundled"
    assert status["features"]["runqlat"]["profile"] == "reduced"
    first = status["features"]["runqlat"]["counters"]["delivered"]
    wait_for(lambda: service.feature("runqlat")["counters"]["delivered"] > first, "runqlat counts")


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        pytest.param({"release": "0.0.0-renamed"}, None, id="by the build id alone"),
        pytest.param({"build_id": None}, None, id="by the release, of every build"),
        pytest.param({}, b"", id="by the release, where the kernel hides its build id"),
    ],
)
def test_an_entry_that_fits(
    loader: Path, bundle: Bundle, trust: Trust, tmp_path: Path, changes: dict[str, Any], notes: bytes | None
) -> None:
    other = FILE.replace(MACHINE, "other")
    bundle.replace(other, b"of another machine")
    bundle.replace(INDEX, index(entry(machine="other", file=other), entry(**changes)))
    found = check(loader, bundle, trust, prefix=hidden(tmp_path, notes))
    assert (found["btf"], found["btf_file"]) == ("bundled", FILE)
    assert reached(found) == ("reduced", "EF_NO_BTF")


def hidden(tmp_path: Path, notes: bytes | None = None) -> Sequence[str]:
    """A prefix that hides the BTF, and gives the kernel other notes."""
    if notes is None:
        return elsewhere(HIDE_BTF)
    path = tmp_path / "notes"
    path.write_bytes(notes)
    return elsewhere(HIDE_BTF, say_notes(path))


@pytest.mark.parametrize(
    ("notes", "fits"),
    [
        pytest.param(
            note(b"Linux\0", 0, b"\1\2\3\4\5") + note(b"GNU\0", 3, bytes(range(20))), True, id="after another"
        ),
        pytest.param(
            note(b"GNU\0", 1, b"\0" * 16) + note(b"GNU\0", 3, bytes(range(20))), True, id="after GNU's ABI tag"
        ),
        pytest.param(note(b"GNU\0", 3, bytes(range(20)))[:-1], False, id="cut off"),
        pytest.param(struct.pack("=III", 0xFFFFFFF0, 20, 3) + b"GNU\0" * 8, False, id="a length beyond the end"),
        pytest.param(note(b"GNU\0", 3, bytes(range(16))), False, id="not 20 bytes"),
        pytest.param(note(b"Xen\0", 3, bytes(range(20))), False, id="not GNU's"),
    ],
)
def test_the_build_id_among_notes(
    loader: Path, bundle: Bundle, trust: Trust, tmp_path: Path, notes: bytes, fits: bool
) -> None:
    bundle.replace(INDEX, index(entry(build_id=bytes(range(20)).hex(), release="0.0.0")))
    found = check(loader, bundle, trust, prefix=hidden(tmp_path, notes))
    assert found["btf"] == ("bundled" if fits else "missing")
    assert ("unknown" in reason(found)) == (not fits)


# ---- the wrong one ----


def test_without_an_index_the_feature_is_disabled_and_says_so(loader: Path, bundle: Bundle, trust: Trust) -> None:
    found = check(loader, bundle, trust, prefix=elsewhere(HIDE_BTF))
    assert (found["btf"], found["btf_file"]) == ("missing", None)
    assert reached(found) == ("disabled", "EF_NO_BTF")
    assert "/sys/kernel/btf/vmlinux" in reason(found)


def test_another_build_of_the_same_release_is_refused(loader: Path, bundle: Bundle, trust: Trust) -> None:
    bundle.replace(INDEX, index(entry(build_id=OTHER_ID)))
    found = check(loader, bundle, trust, prefix=elsewhere(HIDE_BTF))
    assert found["btf"] == "missing" and reached(found) == ("disabled", "EF_BTF_MISMATCH")
    assert own_build_id() in reason(found) and RELEASE in reason(found)


def test_the_right_build_goes_before_another_of_the_same_release(loader: Path, bundle: Bundle, trust: Trust) -> None:
    other = f"btf/{MACHINE}/other.btf"
    bundle.replace(other, b"never looked at")
    bundle.replace(INDEX, index(entry(build_id=OTHER_ID, file=other), entry(build_id=None, file=other), entry()))
    found = check(loader, bundle, trust, prefix=elsewhere(HIDE_BTF))
    assert (found["btf"], found["btf_file"]) == ("bundled", FILE)


def test_two_that_could_be_it_are_none(
    loader: Path, bundle: Bundle, trust: Trust, tmp_path: Path, minimal_btf: bytes
) -> None:
    other = f"btf/{MACHINE}/other.btf"
    bundle.replace(other, minimal_btf)
    bundle.replace(INDEX, index(entry(), entry(build_id=OTHER_ID, file=other)))
    found = check(loader, bundle, trust, prefix=hidden(tmp_path, b""))
    assert found["btf"] == "missing" and reached(found) == ("disabled", "EF_BTF_MISMATCH")
    assert "build id" in reason(found)


def test_another_kernels_is_not_taken(loader: Path, bundle: Bundle, trust: Trust) -> None:
    bundle.replace(INDEX, index(entry(release="0.0.0", build_id=OTHER_ID)))
    found = check(loader, bundle, trust, prefix=elsewhere(HIDE_BTF))
    assert found["btf"] == "missing" and reached(found) == ("disabled", "EF_NO_BTF")
    assert RELEASE in reason(found)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        pytest.param(b"{", "line 1", id="no JSON"),
        pytest.param(canonical({"schema": "ebpf.fleet/btf-index/v2", "entries": []}), "schema", id="schema"),
        pytest.param(canonical({"schema": "ebpf.fleet/btf-index/v1"}), "entries", id="no entries"),
        pytest.param(index({"machine": MACHINE}), "entries", id="keys"),
        pytest.param(index(entry(machine=7)), "entries.machine", id="machine"),
        pytest.param(index(entry(release="")), "entries.release", id="release"),
        pytest.param(index(entry(build_id="AB" * 20)), "entries.build_id", id="upper case"),
        pytest.param(index(entry(build_id=7)), "entries.build_id", id="no text"),
        pytest.param(index(entry(file=f"btf/{MACHINE}/none.btf")), "entries.file", id="no such file"),
        pytest.param(index(entry(file="features/runqlat/contract.json")), "entries.file", id="no BTF's path"),
        pytest.param(index(entry(), entry(machine="arm")), "entries.file", id="another machine's folder"),
    ],
)
def test_a_malformed_index_is_named_and_nothing_of_it_used(
    loader: Path, bundle: Bundle, trust: Trust, data: bytes, named: str
) -> None:
    bundle.replace(INDEX, data)
    found = check(loader, bundle, trust, prefix=elsewhere(HIDE_BTF))
    assert found["btf"] == "missing" and reached(found) == ("disabled", "EF_NO_BTF")
    assert INDEX in reason(found) and named in reason(found) and "build the release again" in reason(found)
    assert check(loader, bundle, trust)["btf"] == "vmlinux", "it does not matter where the kernel has its own"


def test_a_file_that_is_no_btf_is_named(loader: Path, bundle: Bundle, trust: Trust) -> None:
    bundle.replace(FILE, b"no BTF")
    bundle.replace(INDEX, index(entry()))
    found = check(loader, bundle, trust, prefix=elsewhere(HIDE_BTF))
    assert found["btf"] == "missing" and reached(found) == ("disabled", "EF_NO_BTF")
    assert FILE in reason(found)


def test_altered_btf_refuses_the_bundle(loader: Path, bundle: Bundle, trust: Trust, minimal_btf: bytes) -> None:
    bundle.replace(INDEX, index(entry()))
    (bundle.root / FILE).write_bytes(minimal_btf[:-1] + bytes([minimal_btf[-1] ^ 1]))
    found = check(loader, bundle, trust, prefix=elsewhere(HIDE_BTF), expected=3)
    assert (found["reason_code"], found["file"]) == ("EF_FILE_DIGEST", FILE)


SMALL = """
#include "ef_kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
SEC("raw_tp/sched_switch") int ef_test(__u64 *ctx) {
	struct task_struct *task = (void *)ctx[1];
	return BPF_CORE_READ(task, %s) == 1;
}
"""


def test_btf_that_lacks_what_an_object_reads_does_not_fit(loader: Path, tmp_path: Path, trust: Trust) -> None:
    made_for = compile_source(tmp_path, "made_for", SMALL % "pid")
    reads = compile_source(tmp_path, "reads", SMALL % "tgid")
    target = tmp_path / "small.btf"
    command = ["bpftool", "gen", "min_core_btf", "/sys/kernel/btf/vmlinux", str(target)]
    subprocess.run([*command, str(tmp_path / "made_for.bpf.o")], check=True)
    variants = [variant("full", ["ef_test"], ["btf:any"])]
    bundle = bundle_of(
        tmp_path,
        trust,
        fits=(contract("fits", variants), {"full": made_for}),
        lacks=(contract("lacks", variants), {"full": reads}),
    )
    bundle.replace(FILE, target.read_bytes())
    bundle.replace(INDEX, index(entry()))
    found = check(loader, bundle, trust, prefix=elsewhere(HIDE_BTF))
    assert reached(found, "fits") == ("full", "EF_OK")
    assert reached(found, "lacks") == ("disabled", "EF_LOAD_REJECTED")


# ---- a BTF that is there and is none ----


def broken_btf(kind: str) -> bytes:
    whole = Path("/sys/kernel/btf/vmlinux").read_bytes()
    if kind == "unknown kind":
        # The first type (an int) becomes of a kind that no loader knows.
        at = struct.unpack_from("=I", whole, 4)[0]
        return whole[: at + 4] + struct.pack("=I", 31 << 24) + whole[at + 8 :]
    return {"cut": whole[: len(whole) // 2], "empty": b"", "zeros": bytes(4096), "short": whole[:20],
            "text": b"not BTF" * 99, "no strings": whole[:-1] + b"x"}[kind]  # fmt: skip


def instead_of_btf(path: Path) -> str:
    return f"{HIDE_BTF} && cp '{path}' /sys/kernel/btf/vmlinux"


def predicted(path: Path, bundle: Bundle, name: str, indexed: bool) -> dict[str, Any]:
    """The prediction of the module's own code, behind the same mount."""
    script = (
        "import json, sys; from pathlib import Path; sys.path.insert(0, 'collections');"
        "from ansible_collections.ebpf.fleet.plugins.module_utils.facts import capabilities, profile;"
        "contract, index = json.loads(sys.stdin.read());"
        "facts = capabilities.gather(profile.requirements([contract]), btf_index=index);"
        "print(json.dumps([facts['btf'], profile.predict(contract, facts, '2026-01-01')]))"
    )
    contract_text = (bundle.root / f"features/{name}/contract.json").read_text()
    entries = [entry()] if indexed else None
    done = subprocess.run(
        [*elsewhere(instead_of_btf(path)), sys.executable, "-c", script],
        input=f"[{contract_text}, {json.dumps(entries)}]",
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    answer, prediction = json.loads(done.stdout)
    return {"btf": answer, **prediction}


@pytest.mark.parametrize("kind", ["unknown kind", "cut", "empty", "zeros", "short", "text", "no strings"])
def test_unreadable_btf_counts_as_missing_with_a_reason_of_its_own(
    loader: Path, bundle: Bundle, trust: Trust, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(broken_btf(kind))
    found = check(loader, bundle, trust, "--attach", prefix=elsewhere(instead_of_btf(path)))
    assert (found["btf"], found["kernel"]["btf"]) == ("missing", "missing")
    prediction = predicted(path, bundle, "runqlat", indexed=False)
    assert reached(found) == ("disabled", "EF_BTF_UNREADABLE")
    assert (prediction["profile"], prediction["reason_code"]) == reached(found)
    assert (prediction["btf"]["answer"], prediction["btf"]["state"]) == ("no", "missing")


def test_the_bundles_btf_stands_in_for_one_that_cannot_be_read(
    loader: Path, bundle: Bundle, trust: Trust, tmp_path: Path
) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(broken_btf("unknown kind"))
    bundle.replace(INDEX, index(entry()))
    found = check(loader, bundle, trust, "--attach", prefix=elsewhere(instead_of_btf(path)))
    assert (found["btf"], found["btf_file"]) == ("bundled", FILE)
    assert reached(found) == ("reduced", "EF_BTF_UNREADABLE")
    prediction = predicted(path, bundle, "runqlat", indexed=True)
    assert (prediction["profile"], prediction["reason_code"]) == reached(found)
