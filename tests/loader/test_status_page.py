# SPDX-License-Identifier: GPL-3.0-or-later
"""The page on the status has every field of a status that the real loader wrote, and its sample no other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.loader.bundles import Trust
from tests.loader.service import Service, feature_of, make_service, until_end, wait_for
from tests.loader.test_metrics import give_lease

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "formats" / "status.md").read_text(encoding="utf-8")
# The page links these for the fields that they explain.
LINKED = [DOCS / "degradation.md", *(DOCS / "formats" / f"{name}.md" for name in ("events", "lease", "policy"))]
# One of each path and kind: histogram, records with fairness, counters.
FEATURES = ("runqlat", "exec_events", "syscall_errors")
STATES = re.compile(r"\[EF_STATE_[A-Z]+\] = (\"\w+\")")


@pytest.fixture
def service(loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path) -> Iterator[Service]:
    made = make_service(loader, tmp_path, trust, {name: feature_of(feature_objects, name) for name in FEATURES})
    made.want(*FEATURES)
    yield from until_end(made)


def keys(value: Any, names: frozenset[str]) -> set[str]:
    """Every key of a document, the names of features left out."""
    if isinstance(value, list):
        return set().union(*(keys(one, names) for one in value)) if value else set()
    if not isinstance(value, dict):
        return set()
    found = set(value) - names
    return found.union(*(keys(one, names) for one in value.values())) if value else found


def sample() -> str:
    """The block of JSON under the heading."""
    found = re.search(r"^## Example\n.*?```json\n(.*?)```", PAGE, re.M | re.S)
    assert found
    return found[1]


def sample_keys() -> set[str]:
    return set(re.findall(r'"(\w+)":', sample())) - {"runqlat", "exec_events"}


def full_status(service: Service) -> dict[str, Any]:
    """A status with everything in it: an order, a lease, budgets."""
    give_lease(service, 3600)
    service.order("feature.exec_events")
    service.start_settled()
    service.wait_state("exec_events", "killed")
    wait_for(lambda: (service.fresh_status()["budget"] or {}).get("features"), "the first interval is over")
    return service.now()


def test_the_sample_has_every_field_on_top_and_of_a_feature(service: Service) -> None:
    status = full_status(service)
    documented = sample_keys()
    assert set(status) - documented == set()
    for name in FEATURES:
        assert set(status["features"][name]) - documented == set(), name


def test_every_field_that_the_loader_wrote_is_on_the_page(service: Service) -> None:
    names = frozenset(FEATURES)
    status = full_status(service)
    for name in ("kills", "lease", "budget", "features", "compatibility", "privileges"):
        assert status[name], f"{name} is empty here, so nothing of it would be looked at"
    told = set(re.findall(r'[`"](\w+)[`"]', PAGE + "".join(one.read_text(encoding="utf-8") for one in LINKED)))
    assert keys(status, names) - told == set()


def test_the_sample_has_no_field_that_the_loader_does_not_write(service: Service) -> None:
    names = frozenset(FEATURES)
    service.order("feature.mistyped")
    service.start_settled()
    attached = service.now()
    service.stop()
    assert sample_keys() - keys(attached, names) - keys(full_status(service), names) == set()


def test_the_page_has_every_state_of_a_feature() -> None:
    source = (Path(__file__).resolve().parents[2] / "bpf/loader/feature/state.c").read_text(encoding="utf-8")
    states = {json.loads(word) for word in STATES.findall(source)}
    (line,) = re.findall(r"^- feature `state`: (.*)$", PAGE, re.M)
    assert states and set(re.findall(r"`(\w+)`", line)) == states
