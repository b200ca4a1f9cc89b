# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image says of its kernel, held against what that kernel said itself when the matrix asked it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import nextkernel

ROOT = Path(__file__).resolve().parents[2]
MATRIX = ROOT / "build/matrix/work"
TABLES = ("program_types", "map_types", "attach_points", "helpers")
# A no that is the setting's of that host, or of its hardware, and not the kernel's.
OF_THE_HOST = ("EF_PERMISSION", "EF_LOCKDOWN", "EF_LSM_INACTIVE", "EF_ATTACH_FAILED")
LEAST_COMPARED = 40


def images() -> dict[str, Path]:
    """Kernel images of the lab's cache, by release."""
    found = {}
    for image in sorted((ROOT / ".cache/lab/kernels").glob("*/vmlinuz")):
        found[json.loads((image.parent / "about.json").read_text())["release"]] = image
    return found


def asked() -> list[dict[str, Any]]:
    """Facts that the matrix gathered on kernels whose images are here, one host a kernel."""
    known, found = images(), {}
    for path in sorted(MATRIX.glob("facts/*.json")):
        facts = json.loads(path.read_text())
        if facts["kernel"]["release"] in known and facts["btf"]["state"] == "vmlinux":
            found.setdefault(facts["kernel"]["release"], facts)
    return list(found.values())


def foretold(facts: dict[str, Any], image: Path, root: Path, contracts: list[dict[str, Any]]) -> dict[str, Any]:
    release = facts["kernel"]["release"]
    (root / "boot").mkdir()
    (root / f"boot/vmlinuz-{release}").symlink_to(image)
    # The running kernel is another one, of which nothing is known.
    now = {"kernel": {"machine": facts["kernel"]["machine"]}, "distro": facts["distro"]}
    coming = nextkernel.Next(root, nextkernel.Choice(release, "the test"), now, contracts)
    assert coming.source.build_id == facts["kernel"]["build_id"]
    return coming.facts()


def contradicts(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Does the running kernel say the opposite of what its image said?"""
    if before["answer"] == "no":
        return after["answer"] == "yes"
    return before["answer"] == "yes" and after["answer"] == "no" and after.get("reason_code") not in OF_THE_HOST


def test_an_image_never_says_the_opposite_of_its_running_kernel(tmp_path: Path) -> None:
    found = asked()
    if not found:
        pytest.skip("the matrix has asked no kernel yet whose image is in the lab's cache; run make test-matrix")
    contracts = json.loads((MATRIX / "variables.json").read_text())["matrix_contracts"]
    wrong, compared = [], 0
    for facts in found:
        release = facts["kernel"]["release"]
        folder = tmp_path / release
        folder.mkdir()
        before = foretold(facts, images()[release], folder, contracts)
        for table in TABLES:
            for name, answer in before[table].items():
                after = facts[table].get(name, {"answer": "unknown"})
                compared += "unknown" not in (answer["answer"], after["answer"])
                if contradicts(answer, after):
                    wrong.append(f"{release} {table} {name}: image {answer}, kernel {after}")
    assert wrong == [], "\n".join(wrong)
    assert compared >= LEAST_COMPARED * len(found), f"only {compared} answers could be compared"
