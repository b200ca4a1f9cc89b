# SPDX-License-Identifier: GPL-3.0-or-later
"""The loader reads control files as the modules do (tests/unit/test_control_files.py has the same table)."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.loader.bundles import Trust, canonical
from tests.loader.service import Service, feature_of, make_service, wait_for
from tests.loader.test_lease import lease
from tests.support.odd_documents import DESIRED, LEASE, Odd
from tests.support.odd_orders import ORDERS, named


@pytest.fixture(scope="module")
def service(
    loader: Path, feature_objects: Path, signing_key: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    made = make_service(
        loader, folder, Trust(folder / "trust", signing_key), {"runqlat": feature_of(feature_objects, "runqlat")}
    )
    made.want("runqlat")
    made.start_settled()
    yield made
    made.stop(signal.SIGKILL)


def replace(service: Service, name: str, data: bytes) -> None:
    part = service.etc / f".{name}.part"
    part.write_bytes(data)
    part.rename(service.etc / name)


def after_good(service: Service, name: str, good: bytes, odd: bytes) -> dict[str, Any]:
    """The status once the odd file, put there while the good one was in force, has been read."""
    replace(service, name, good)
    wait_for(lambda: service.now()["desired_error"] is None and not lapsed(service.now()), "the good one is in force")
    replace(service, name, odd)
    found: dict[str, Any] = service.fresh_status()
    return found


def lapsed(status: dict[str, Any]) -> bool:
    return bool((status["lease"] or {}).get("expired"))


@pytest.mark.parametrize("odd", DESIRED, ids=lambda odd: odd.name)
def test_desired(service: Service, odd: Odd) -> None:
    wish = {"enabled": True, "sample_every": 7}
    good = canonical({"schema": "ebpf.fleet/desired/v1", "bundle_digest": None, "features": {"runqlat": wish}})
    found = after_good(service, "desired.json", good, odd.make(good))
    assert (found["desired_error"] is None) is odd.readable, found["desired_error"]
    assert found["features"]["runqlat"]["state"] == "attached", "what was in force stays"


@pytest.mark.parametrize("odd", LEASE, ids=lambda odd: odd.name)
def test_lease(service: Service, odd: Odd) -> None:
    service.want("runqlat")
    good = canonical(lease(service, 600, holder="me"))
    try:
        found = after_good(service, "lease.json", good, odd.make(good))
        assert lapsed(found) is not odd.readable, found["lease"]
    finally:
        (service.etc / "lease.json").unlink()


@pytest.mark.parametrize("name", ORDERS)
def test_order(service: Service, name: str) -> None:
    service.want("runqlat")
    kernel = service.now()["kernel"]
    path = service.order(named(name, kernel["family"], kernel["distro_family"]))
    try:
        found = service.fresh_status()
        assert (found["features"]["runqlat"]["state"] == "killed") is ORDERS[name], found["kills"]
    finally:
        path.unlink()
        service.wait_state("runqlat", "attached")
