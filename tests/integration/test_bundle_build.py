# SPDX-License-Identifier: GPL-3.0-or-later
"""The bundle_build module and playbooks/release.yml: real compilers, real keys, the same bytes each time."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import files as bd

from tests.integration.release_host import (
    CREATED,
    FILES,
    REPO,
    environment,
    make_key,
    public_key,
    run_module,
)

pytestmark = pytest.mark.apart

PLAYBOOK = REPO / "playbooks/release.yml"


def build(output: Path, check: bool = False, **changes: Any) -> dict[str, Any]:
    arguments = {
        "source": str(REPO / "bpf"),
        "build_dir": str(REPO / "build"),
        "output": str(output),
        "version": "1.0.0",
        "sequence": 1,
        "created": CREATED,
        "signing_key": str(make_key()),
        "features": None if "features_dirs" in changes else ["exec_events", "runqlat"],
        **changes,
    }
    result, done = run_module("bundle_build", {key: value for key, value in arguments.items() if value}, check)
    assert result is not None, done.stderr
    return result


def refused(output: Path, code: str, *words: str, **changes: Any) -> str:
    answer = build(output, **changes)
    assert answer.get("failed") and answer["reason_code"] == code, answer
    for word in words:
        assert word in answer["msg"]
    return str(answer["msg"])


@pytest.fixture
def feature(tmp_path: Path) -> Path:
    """A copy of a feature of the repository, to be broken."""
    return Path(shutil.copytree(REPO / "bpf/features/runqlat", tmp_path / "features/runqlat"))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_built_bundle_is_whole_signed_and_accepted_by_the_loader(tmp_path: Path) -> None:
    output = tmp_path / "b.tar"
    answer = build(output)
    bundle = bd.load_bundle(str(output))
    assert answer["changed"] and answer["digest"] == bundle.manifest.digest
    assert set(FILES) <= set(bundle.members)
    signers = tmp_path / "signers"
    signers.write_text(f"me {public_key(make_key())}\n")
    command = ["ssh-keygen", "-Y", "verify", "-n", "ebpf-fleet-release", "-I", "me", "-f", str(signers)]
    (tmp_path / "sig").write_bytes(bundle.signature)
    subprocess.run([*command, "-s", str(tmp_path / "sig")], input=bundle.manifest.data, check=True, capture_output=True)


@pytest.mark.slow
def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    built = []
    # Copies of one moment, in two places: the tree itself may be edited meanwhile.
    still = shutil.copytree(REPO / "bpf", tmp_path / "one/bpf")
    for place in ("one", "two"):
        source = still if place == "one" else shutil.copytree(still, tmp_path / place / "bpf")
        shutil.copytree(REPO / "collectors", tmp_path / place / "collectors")
        build(tmp_path / f"{place}.tar", source=str(source), build_dir=str(tmp_path / f"build-{place}"))
        built.append((tmp_path / f"{place}.tar").read_bytes())
    assert hashlib.sha256(built[0]).digest() == hashlib.sha256(built[1]).digest()


@pytest.mark.slow
def test_the_tar_is_plain_sorted_and_owned_by_root(tmp_path: Path) -> None:
    build(tmp_path / "b.tar")
    with tarfile.open(tmp_path / "b.tar", "r:") as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == sorted(member.name for member in members)
    for member in members:
        assert member.isreg() and (member.uid, member.gid) == (0, 0)
        assert member.mtime == bd.epoch_of(CREATED)


@pytest.mark.slow
def test_a_second_build_changes_nothing_also_without_a_given_time(tmp_path: Path) -> None:
    output = tmp_path / "b.tar"
    assert build(output, created=None)["changed"]
    before = output.read_bytes()
    again = build(output, created=None)
    assert not again["changed"] and output.read_bytes() == before


@pytest.mark.slow
def test_a_folder_is_written_too(tmp_path: Path) -> None:
    answer = build(tmp_path / "bundle")
    assert answer["changed"] and bd.load_bundle(str(tmp_path / "bundle")).manifest.digest == answer["digest"]
    assert not build(tmp_path / "bundle")["changed"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.slow
def test_a_version_is_immutable(tmp_path: Path) -> None:
    output = tmp_path / "b.tar"
    build(output)
    before = output.read_bytes()
    refused(output, "EF_BUNDLE_IMMUTABLE", "1.0.0", sequence=2)
    assert output.read_bytes() == before
    assert build(output, sequence=2, force=True)["changed"]
    assert build(output, sequence=3, version="1.0.1")["changed"]


def test_an_output_that_is_no_bundle_is_not_overwritten(tmp_path: Path) -> None:
    output = tmp_path / "notes.tar"
    output.write_text("mine")
    refused(output, "EF_BUNDLE_IMMUTABLE", "notes.tar")
    assert output.read_text() == "mine"


@pytest.mark.slow
def test_check_mode_builds_and_writes_nothing(tmp_path: Path) -> None:
    answer = build(tmp_path / "b.tar", check=True, build_dir=str(tmp_path / "build"))
    assert answer["changed"] and len(answer["digest"]) == 64
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_subset_of_the_features(tmp_path: Path) -> None:
    answer = build(tmp_path / "b.tar", features=["runqlat"])
    assert list(answer["features"]) == ["runqlat"]
    refused(tmp_path / "c.tar", "EF_ARGUMENT", "did you mean 'runqlat'?", features=["runqlatt"])


@pytest.mark.slow
def test_a_feature_from_another_folder(tmp_path: Path, feature: Path) -> None:
    answer = build(tmp_path / "b.tar", features_dirs=[str(feature.parent)])
    assert answer["features"] == {"runqlat": ["full", "reduced"]}
    dirs = [str(feature.parent), str(REPO / "bpf/features")]
    refused(tmp_path / "c.tar", "EF_ARGUMENT", "rename one", features_dirs=dirs)


@pytest.mark.slow
def test_a_given_loader_is_taken_and_must_fit_this_machine(tmp_path: Path) -> None:
    output = tmp_path / "b.tar"
    build(output)
    loaders = {path.split("/")[1]: str(REPO / "build" / path) for path in FILES if path.startswith("loader/")}
    assert not build(output, loader=loaders)["changed"]
    refused(tmp_path / "c.tar", "EF_ARGUMENT", "loader", loader={"riscv64": "/nowhere"})


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("cpu_millicores: 50", "cpu_millicores: 0", ["budget.cpu_millicores", "from 1 to 1000"]),
        ("summary:", "sumary:", ["sumary", "did you mean 'summary'?", "summary: is missing"]),
        ("alert: HostRunQueueLatencyHigh\n", "", ["consumer"]),
        ("name: ef_hist", "name: ef_hist2", ["signals[0].map", "did you mean 'ef_hist2'?"]),
        ("max_entries: 65", "max_entries: 64", ["ef_hist", "64", "65"]),
        ("  - name: ef_rql_start", "  - name: ef_rql_other", ["'ef_rql_start'", "not declared"]),
        ('      - "attach:tp_btf:sched_switch"\n', "", ["lacks 'attach:tp_btf:sched_switch'"]),
        ("ef_rql_wakeup,", "ef_rql_wakeups,", ["'ef_rql_wakeups' is not in the object", "ef_rql_wakeup"]),
        ("map_memory_bytes: 4194304", "map_memory_bytes: 4096", ["budget.map_memory_bytes", "on one CPU"]),
        ("lifetime: permanent", "lifetime: temporary", ["expires", "is missing"]),
        ("lifetime: permanent", "lifetime: temporary\nexpires: 2026-11-23", ["2026-11-23 has come"]),
        ("feature: runqlat\n", "feature: runqlat\nfeature: other\n", ["'feature' is there twice"]),
        ("summary:", "\tsummary:", ["cannot be read as YAML"]),
    ],
)
@pytest.mark.slow
def test_a_contract_that_does_not_hold_is_refused(
    tmp_path: Path, feature: Path, old: str, new: str, words: list[str]
) -> None:
    edit(feature / "contract.yml", old, new)
    message = refused(tmp_path / "b.tar", "EF_CONTRACT_MALFORMED", *words, features_dirs=[str(feature.parent)])
    assert str(feature / "contract.yml") in message
    assert not (tmp_path / "b.tar").exists()


def test_a_program_that_does_not_compile_is_refused(tmp_path: Path, feature: Path) -> None:
    with (feature / "runqlat.bpf.c").open("a") as source:
        source.write("this is no C;\n")
    refused(tmp_path / "b.tar", "EF_BUILD", "runqlat.bpf.c", features_dirs=[str(feature.parent)])
    (feature / "runqlat.bpf.c").unlink()
    refused(tmp_path / "b.tar", "EF_CONTRACT_MALFORMED", "does not exist", features_dirs=[str(feature.parent)])


@pytest.mark.slow
def test_keys_that_cannot_sign_are_refused(tmp_path: Path) -> None:
    output = tmp_path / "b.tar"
    refused(output, "EF_KEY", "does not exist", "ssh-keygen -t ed25519", signing_key=str(tmp_path / "none"))
    refused(output, "EF_KEY", "RSA", "ed25519", signing_key=str(make_key("old", "rsa")))
    refused(output, "EF_KEY", "ECDSA", signing_key=str(make_key("old", "ecdsa")))
    locked = tmp_path / "locked"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret-words", "-f", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    refused(output, "EF_KEY", "ssh-agent", signing_key=str(locked))
    assert not output.exists()


@pytest.mark.slow
def test_a_key_in_the_agent_signs(tmp_path: Path) -> None:
    public = Path(shutil.copy(f"{make_key()}.pub", tmp_path / "release.pub"))
    variables = {
        "ebpf_fleet_release_version": "1.0.0",
        "ebpf_fleet_release_sequence": 1,
        "ebpf_fleet_release_signing_key": str(public),
        "ebpf_fleet_release_output": str(tmp_path / "b.tar"),
    }
    assert play(**variables).returncode != 0
    (tmp_path / "vars.json").write_text(json.dumps(variables))
    command = 'ssh-add -q "$1" && exec ansible-playbook "$2" -i localhost, -e "@$3"'
    done = subprocess.run(
        ["ssh-agent", "sh", "-c", command, "sh", str(make_key()), str(PLAYBOOK), str(tmp_path / "vars.json")],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
        cwd=REPO,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert bd.load_bundle(str(tmp_path / "b.tar")).manifest.version == "1.0.0"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"version": "../1"}, "version"),
        ({"sequence": -1}, "sequence"),
        ({"name": "a b"}, "name"),
        ({"source": "/nowhere"}, "source"),
        ({"created": "yesterday"}, "created"),
        ({"features_dirs": ["/tmp/nowhere-at-all"]}, "features_dirs"),
    ],
)
def test_arguments_that_no_bundle_can_have_are_refused(tmp_path: Path, changes: dict[str, Any], word: str) -> None:
    refused(tmp_path / "b.tar", "EF_ARGUMENT", word, **changes)


def play(*extra: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    command = ["ansible-playbook", str(PLAYBOOK), "-i", "localhost,", "-e", json.dumps(variables), *extra]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), cwd=REPO)


@pytest.mark.slow
def test_the_playbook_says_digest_and_place(tmp_path: Path) -> None:
    variables = {
        "ebpf_fleet_release_version": "1.2.3",
        "ebpf_fleet_release_sequence": 9,
        "ebpf_fleet_release_signing_key": str(make_key()),
        "ebpf_fleet_release_features": ["runqlat"],
        "ebpf_fleet_release_output": str(tmp_path / "b.tar"),
    }
    checked = play("--check", **variables)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert not (tmp_path / "b.tar").exists()
    done = play(**variables)
    assert done.returncode == 0, done.stdout + done.stderr
    bundle = bd.load_bundle(str(tmp_path / "b.tar"))
    assert bundle.manifest.digest in done.stdout and str(tmp_path / "b.tar") in done.stdout
    again = play(**variables)
    assert "changed=0" in again.stdout


@pytest.mark.slow
def test_the_playbook_takes_paths_from_where_it_was_called(tmp_path: Path, feature: Path) -> None:
    shutil.copy(make_key(), tmp_path / "key")
    variables = {
        "ebpf_fleet_release_version": "1.2.3",
        "ebpf_fleet_release_sequence": 9,
        "ebpf_fleet_release_signing_key": "key",
        "ebpf_fleet_release_features_dirs": ["features"],
        "ebpf_fleet_release_output": "out/b.tar",
    }
    command = ["ansible-playbook", str(PLAYBOOK), "-i", "localhost,", "-e", json.dumps(variables)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment(PWD=str(tmp_path)), cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(bd.load_bundle(str(tmp_path / "out/b.tar")).contracts) == [feature.name]


@pytest.mark.slow
def test_the_playbook_takes_btf_and_says_for_which_kernels(tmp_path: Path, feature: Path) -> None:
    vmlinux = Path("/sys/kernel/btf/vmlinux")
    # Of the kernel: nothing else has whole BTF; the lab's guests have it.
    if not vmlinux.exists():
        pytest.skip(f"{vmlinux} is not there: this kernel does not tell its types")
    (tmp_path / "btf").mkdir()
    shutil.copy(vmlinux, tmp_path / "btf/6.1.0-9-amd64.btf")
    shutil.copy(make_key(), tmp_path / "key")
    variables = {
        "ebpf_fleet_release_version": "1.2.3",
        "ebpf_fleet_release_sequence": 9,
        "ebpf_fleet_release_signing_key": "key",
        "ebpf_fleet_release_features_dirs": ["features"],
        "ebpf_fleet_release_btf_dirs": ["btf"],
        "ebpf_fleet_release_output": "b.tar",
    }

    def typed(**more: Any) -> subprocess.CompletedProcess[str]:
        command = ["ansible-playbook", str(PLAYBOOK), "-i", "localhost,", "-e", json.dumps({**variables, **more})]
        here = environment(PWD=str(tmp_path))
        return subprocess.run(command, capture_output=True, text=True, check=False, env=here, cwd=tmp_path)

    done = typed()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "BTF for:  6.1.0-9-amd64" in done.stdout and "not measured; give ebpf_fleet_release_matrix" in done.stdout
    assert [entry["release"] for entry in bd.load_bundle(str(tmp_path / "b.tar")).btf_index] == ["6.1.0-9-amd64"]
    (tmp_path / "matrix.json").write_text("{}")
    refused_matrix = typed(ebpf_fleet_release_matrix="matrix.json", ebpf_fleet_release_output="c.tar")
    assert refused_matrix.returncode != 0 and f"matrix: {tmp_path / 'matrix.json'}: schema" in refused_matrix.stdout
    assert not (tmp_path / "c.tar").exists()


@pytest.mark.parametrize("missing", ["version", "sequence", "signing_key"])
def test_the_playbook_names_what_is_missing(tmp_path: Path, missing: str) -> None:
    variables = {"version": "1.0.0", "sequence": 1, "signing_key": str(make_key()), "output": str(tmp_path / "b.tar")}
    del variables[missing]
    done = play(**{f"ebpf_fleet_release_{key}": value for key, value in variables.items()})
    assert done.returncode != 0 and f"ebpf_fleet_release_{missing}" in done.stdout + done.stderr
    assert not (tmp_path / "b.tar").exists()
