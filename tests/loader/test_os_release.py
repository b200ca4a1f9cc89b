# SPDX-License-Identifier: GPL-3.0-or-later
"""The loader reads odd os-release files as the modules and the kill script do: tests/unit/test_os_release.py."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.loader.bundles import Trust
from tests.loader.objects import bundle_of, check
from tests.loader.service import feature_of

pytestmark = [
    pytest.mark.apart,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file over os-release: needs root"),
]

TABLE = Path(__file__).resolve().parents[1] / "fixtures/control/os_release.json"
CASES: list[dict[str, Any]] = json.loads(TABLE.read_text())


@pytest.mark.sample(10)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_loader_finds_the_same_id(
    tmp_path: Path, loader: Path, trust: Trust, feature_objects: Path, case: dict[str, Any]
) -> None:
    bundle = bundle_of(tmp_path, trust, runqlat=feature_of(feature_objects, "runqlat"))
    odd = tmp_path / "os-release"
    odd.write_bytes(case["bytes"].encode("latin-1"))
    mount = f'mount --bind {odd} /etc/os-release && exec "$@"'
    kernel = check(loader, bundle, trust, prefix=("unshare", "-m", "sh", "-c", mount, "sh"))["kernel"]
    expected = f"{case['id']}-{kernel['family']}" if case["id"] else None
    assert kernel["distro_family"] == expected
