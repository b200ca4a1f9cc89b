# SPDX-License-Identifier: GPL-3.0-or-later
"""`make contract NAME=…`: builds a feature and holds its contract against the objects, as a release does.

Nothing is signed. Texts that still say FILL IN are printed and are not a fault here: only a release refuses them.
"""

from __future__ import annotations

import datetime
import os
import platform
import sys
import tempfile
from pathlib import Path

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, raise_all
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import compile as objects
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.contracts import contract_problems, find_features
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.request import BuildRequest
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.placeholders import placeholders

ROOT = Path(__file__).resolve().parents[2]


def request_of(features: dict[str, Path]) -> BuildRequest:
    """What building and comparing ask of a request; nothing is signed."""
    return BuildRequest(
        name="", version="", sequence=0, created="", features=features, source=ROOT / "bpf", build_dir=ROOT / "build",
        loaders={}, signing_key=Path(), compatibility={},
    )  # fmt: skip


def check(name: str) -> list[str]:
    """Raise FleetError for whatever a build would refuse; what is left to fill in before a release."""
    features = find_features([ROOT / "bpf/features"], [name])
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    contract, problems = contract_problems(name, features[name], today)
    raise_all(problems)
    request = request_of(features)
    with tempfile.TemporaryDirectory(prefix="ebpf-fleet-contract-") as work:
        compiled = objects.compile_objects(request, {name: contract}, Path(work))
        loader = objects.loaders_of(request)[platform.machine()]
        objects.compare_objects(request, {name: contract}, compiled, loader)
    return [error.message for error in placeholders(contract, f"bpf/features/{name}/contract.yml")]


def main() -> int:
    name = os.environ.get("FEATURE_NAME", "")
    try:
        left = check(name)
    except FleetError as error:
        print(f"contract: {error.code}: {error.message}", file=sys.stderr)
        return 1
    print(f"contract: {name} builds and holds what its contract says")
    for sentence in left:
        print(f"contract: before a release: {sentence}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
