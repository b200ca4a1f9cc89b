# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files a bundle carries for the BCC collector: all that it imports, and no more."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.collector_files import START, collector_files
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.manifest import MAX_FILES, file_limit
from ansible_collections.ebpf.fleet.plugins.module_utils.release import store

ROOT = Path(__file__).resolve().parents[2]
TOP = "collector/lib/ansible_collections"
COLLECTION = f"{TOP}/ebpf/fleet"
# What a host needs not be sent stays on the controller: a file here is one that runs with CAP_BPF.
# An error comes with what the list of reason codes says of its code.
OF_REASONS = {f"base/reasons/{name}" for name in ("bundle", "features", "fleet", "reason", "table")}
OF_MODULE_UTILS = {"base/errors", "base/strictjson", "contract/rules", "kernel/bpfsys", "kernel/hostfiles", *OF_REASONS}


def unpacked(folder: Path) -> Path:
    for path, data in collector_files(ROOT).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder / START


def test_a_bundle_carries_the_start_the_parts_and_what_they_use() -> None:
    parts = {f"{COLLECTION}/collectors/fleet_bcc/{path.name}" for path in (ROOT / "collectors/fleet_bcc").glob("*.py")}
    utils = {f"{COLLECTION}/plugins/module_utils/{name}.py" for name in OF_MODULE_UTILS}
    files = collector_files(ROOT)
    sources = {path for path in files if not path.endswith("/__init__.py")}
    assert len(parts) > 20
    assert sources == {START, *parts, *utils} - {f"{COLLECTION}/collectors/fleet_bcc/__init__.py"}
    assert files[START] == (ROOT / "collectors/bcc.py").read_bytes()
    for path in parts | utils:
        assert files[path] == (ROOT / path[len(COLLECTION) + 1 :]).read_bytes()


def test_every_folder_is_a_package_so_that_none_of_the_host_is_taken_for_it() -> None:
    files = collector_files(ROOT)
    folders = {str(Path(path).parent) for path in files if path.startswith(TOP)} | {TOP, f"{TOP}/ebpf"}
    assert {f"{folder}/__init__.py" for folder in folders} <= set(files)
    assert files[f"{TOP}/__init__.py"] == b""


def test_it_stays_far_within_the_limits_of_a_bundle() -> None:
    files = collector_files(ROOT)
    assert len(files) < MAX_FILES // 10
    assert all(len(data) < file_limit(path) // 100 for path, data in files.items())


def test_the_unit_starts_it_and_the_release_looks_for_it() -> None:
    unit = (ROOT / "roles/prepare/templates/ebpf-fleet-bcc.service.j2").read_text()
    assert f"python3 -I -B /var/lib/ebpf-fleet/current/bundle/{START} run " in unit
    assert store.COLLECTOR == START


def test_it_runs_from_these_files_alone(tmp_path: Path) -> None:
    """As the unit starts it: by Python without the environment and without the folder of the script."""
    done = subprocess.run(
        [sys.executable, "-I", "-B", str(unpacked(tmp_path)), "run", "--help"],
        capture_output=True, text=True, env={}, cwd="/", timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "--loader-status" in done.stdout, done.stderr
    assert not list(tmp_path.rglob("*.pyc"))


@pytest.mark.parametrize("name", ["basics", "orders"])
def test_a_compiled_file_beside_a_source_is_never_run(tmp_path: Path, name: str) -> None:
    start = unpacked(tmp_path)
    part = tmp_path / COLLECTION / f"collectors/fleet_bcc/{name}.py"
    planted = tmp_path / "planted.py"
    planted.write_bytes(b"raise SystemExit(77)\n".ljust(part.stat().st_size, b"#"))
    shutil.copystat(part, planted)
    tag = f"{name}.{sys.implementation.cache_tag}.pyc"
    script = "import py_compile, sys; py_compile.compile(sys.argv[1], sys.argv[2])"
    subprocess.run([sys.executable, "-c", script, planted, part.parent / "__pycache__" / tag], check=True)
    command = [sys.executable, "-I", "-B", str(start), "run", "--help"]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


def test_a_checkout_that_lacks_a_file_is_refused_with_its_name(tmp_path: Path) -> None:
    for folder in ("collectors", "plugins/module_utils"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    assert collector_files(tmp_path) == collector_files(ROOT)
    (tmp_path / "collectors/bcc.py").unlink()
    with pytest.raises(FleetError, match="collectors/bcc.py does not exist.*whole checkout") as refused:
        collector_files(tmp_path)
    assert refused.value.code == "EF_ARGUMENT"
