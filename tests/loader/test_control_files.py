# SPDX-License-Identifier: GPL-3.0-or-later
"""The loader reads control files as the modules do (tests/unit/test_control_files.py has the same table)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from tests.loader.bundles import Trust, canonical
from tests.loader.service import Service, feature_of, make_service, until_end, wait_for
from tests.loader.test_lease import lease
from tests.loader.test_standing import refused
from tests.support.odd_documents import DESIRED, LEASE, MARK, Odd
from tests.support.odd_orders import FAMILIES, ORDERS, named


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
    yield from until_end(made)


def replace(service: Service, name: str, data: bytes) -> None:
    part = service.etc / f".{name}.part"
    part.write_bytes(data)
    part.rename(service.etc / name)


def put_in_force(service: Service, name: str, good: bytes) -> None:
    replace(service, name, good)
    wait_for(lambda: service.now()["desired_error"] is None and not lapsed(service.now()), "the good one is in force")


def becomes(service: Service, asked: Callable[[dict[str, Any]], bool], wanted: bool) -> dict[str, Any]:
    """The status in which the answer is the wanted one; what stays as it was is looked at in two accounts."""
    if wanted:
        wait_for(lambda: asked(service.now()), "the odd file is refused")
        return service.now()
    service.fresh_status()
    found: dict[str, Any] = service.fresh_status()
    assert not asked(found), found
    return found


def lapsed(status: dict[str, Any]) -> bool:
    return bool((status["lease"] or {}).get("expired"))


@pytest.mark.sample(10)
@pytest.mark.parametrize("odd", DESIRED, ids=lambda odd: odd.name)
def test_desired(service: Service, odd: Odd) -> None:
    wish = {"enabled": True, "sample_every": 7}
    good = canonical({"schema": "ebpf.fleet/desired/v1", "bundle_digest": None, "features": {"runqlat": wish}})
    put_in_force(service, "desired.json", good)
    replace(service, "desired.json", odd.make(good))
    found = becomes(service, lambda status: status["desired_error"] is not None, not odd.readable)
    assert found["features"]["runqlat"]["state"] == "attached", "what was in force stays"


@pytest.mark.sample(10)
@pytest.mark.parametrize("odd", LEASE, ids=lambda odd: odd.name)
def test_lease(service: Service, odd: Odd) -> None:
    service.want("runqlat")
    good = canonical(lease(service, 600, holder="me"))
    try:
        put_in_force(service, "lease.json", good)
        replace(service, "lease.json", odd.make(good))
        becomes(service, lapsed, not odd.readable)
    finally:
        (service.etc / "lease.json").unlink()


@pytest.mark.sample(8)
@pytest.mark.parametrize("name", ORDERS)
def test_order(service: Service, name: str) -> None:
    service.want("runqlat")
    kernel = service.now()["kernel"]
    path = service.order(named(name, kernel["family"], kernel["distro_family"]))
    try:
        becomes(service, lambda status: status["features"]["runqlat"]["state"] == "killed", ORDERS[name])
    finally:
        path.unlink()
        service.wait_state("runqlat", "attached")


def test_a_family_that_no_host_can_have_is_told_as_a_typo(service: Service) -> None:
    paths = {service.order(f"family.{name}"): meant for name, meant in FAMILIES.items() if name != "6.1"}
    try:
        expected = sorted(str(path) for path, meant in paths.items() if not meant)
        # The first status may be of a moment at which only some were read.
        wait_for(lambda: sorted(service.fresh_status()["kill_unknown"]) == expected, f"told are {expected}")
    finally:
        for path in paths:
            path.unlink()


@pytest.mark.parametrize("odd", MARK, ids=lambda odd: odd.name)
def test_mark(loader: Path, feature_objects: Path, trust: Trust, tmp_path: Path, odd: Odd) -> None:
    """Either way the start is refused: by what the mark says, or because no one can say what it says."""
    service = make_service(loader, tmp_path, trust, {"runqlat": feature_of(feature_objects, "runqlat")})
    document = {"schema": "ebpf.fleet/mark/v1", "sequence": 7, "digest": "a" * 64, "below": [], "seen_unix": 5}
    replace(service, "mark.json", odd.make(canonical({**document, "lowered": None})))
    assert refused(service) == ("EF_SEQUENCE_DOWNGRADE" if odd.readable else "EF_MARK_MALFORMED")
