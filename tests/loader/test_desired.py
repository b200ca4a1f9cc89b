# SPDX-License-Identifier: GPL-3.0-or-later
"""`fallbacks` in desired.json: known to the loader, which does nothing with it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.loader.bundles import Trust, canonical
from tests.loader.service import Service, feature_of, make_service, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads BPF: needs root")


@pytest.fixture
def service(loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path) -> Iterator[Service]:
    made = make_service(loader, tmp_path, trust, {"runqlat": feature_of(feature_objects, "runqlat")})
    made.want("runqlat")
    made.start_settled()
    yield made
    made.stop(signal.SIGKILL)


def desired(**changes: Any) -> bytes:
    document = {
        "schema": "ebpf.fleet/desired/v1",
        "bundle_digest": None,
        "features": {"runqlat": {"enabled": False, "sample_every": 1}},
    }
    return canonical({**document, **changes})


@pytest.mark.parametrize("fallbacks", [[], ["bcc"]])
def test_fallbacks_are_taken(service: Service, fallbacks: list[str]) -> None:
    service.write_desired(desired(fallbacks=fallbacks))
    service.wait_state("runqlat", "off")
    assert service.now()["desired_error"] is None


@pytest.mark.parametrize("fallbacks", ["bcc", None, {}, [7], ["bcc", "perl"], [["bcc"]]])
def test_fallbacks_that_nobody_knows_leave_things_as_they_are(service: Service, fallbacks: Any) -> None:
    service.write_desired(desired(fallbacks=fallbacks))
    error = wait_for(lambda: service.now()["desired_error"], "the error is said")
    assert "desired.json" in error and "'fallbacks'" in error and "deploy the release again" in error
    assert service.feature("runqlat")["state"] == "attached", "what runs goes on"


def test_another_key_is_still_refused(service: Service) -> None:
    service.write_desired(desired(fallback=["bcc"]))
    error = wait_for(lambda: service.now()["desired_error"], "the error is said")
    assert "'fallback'" in error and "is not known" in error
