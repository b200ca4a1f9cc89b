# SPDX-License-Identifier: GPL-3.0-or-later
"""observation_info by ansible-playbook, with and without a loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.runner import run_one
from tests.integration.sandbox import Sandbox, can_sandbox
from tests.loader.bundles import Trust
from tests.loader.service import feature_of


def test_a_host_on_which_nothing_is_installed(tmp_path: Path) -> None:
    result = run_one(tmp_path, "observation_info", "--check", window=0.2, state_dir=str(tmp_path / "none"))
    assert (result["failed"], result["changed"]) == (False, False)
    observation = result["observation"]
    assert observation["schema"] == "ebpf.fleet/observation/v1"
    assert observation["window_ns"] >= 200_000_000
    for end in ("start", "end"):
        assert observation[end]["status"] is None
        assert observation[end]["status_age_ns"] is None
        assert observation[end]["host"]["cpus"] >= 1
        assert observation[end]["witness"]["boot_id"] == observation["boot_id"]
        assert observation[end]["witness"]["installed_digest"] is None
        assert "manifest.json: is not there" in observation[end]["witness"]["why"]["installed_digest"]


@pytest.mark.slow
def test_bake_comes_before_the_window(tmp_path: Path) -> None:
    result = run_one(tmp_path, "observation_info", window=0, bake=1.5, state_dir=str(tmp_path))
    assert result["observation"]["window_ns"] == 0
    assert "failed" not in result or result["failed"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": -1}, "window: -1.0 seconds is out of range; give 0 to 3600"),
        ({"window": "nan"}, "window: nan"),
        ({"bake": 90000}, "bake: 90000.0"),
    ],
)
@pytest.mark.sample(1)
def test_bad_times_are_refused(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    result = run_one(tmp_path, "observation_info", **arguments)
    assert result["failed"] is True
    assert result["msg"].startswith("EF_ARGUMENT: ") and message in result["msg"]
    assert result["reason_code"] == "EF_ARGUMENT" and result["remedy"]


@pytest.mark.skipif(not can_sandbox(), reason="loading programs needs root")
def test_the_loaders_counters_are_seen_to_move(
    tmp_path: Path, loader: Path, feature_objects: Path, trust: Trust
) -> None:
    host = Sandbox(loader, tmp_path / "host", trust, {"runqlat": feature_of(feature_objects, "runqlat")})
    host.start("runqlat")
    application = tmp_path / "latency.json"
    application.write_text('{"p95_ns": 1000, "p99_ns": 2000}')
    try:
        result = run_one(
            tmp_path,
            "observation_info",
            window=2,
            state_dir=str(host.service.state),
            application_file=str(application),
        )
    finally:
        host.stop()
    start, end = result["observation"]["start"], result["observation"]["end"]
    produced = [one["status"]["features"]["runqlat"]["counters"]["produced"] for one in (start, end)]
    assert produced[1] > produced[0] >= 0
    assert 0 <= end["status_age_ns"] < 5_000_000_000
    assert end["application"] == {"p95_ns": 1000, "p99_ns": 2000}
