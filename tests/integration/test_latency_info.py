# SPDX-License-Identifier: GPL-3.0-or-later
"""latency_info by ansible-playbook over a real Prometheus, and the gate over what it said."""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Iterator

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import latency, latency_sources

from tests.integration.runner import run_one, run_tasks
from tests.loader.prometheus_server import Prometheus, prometheus
from tests.support.httpserver import respond, serving
from tests.unit.test_gate import CONTRACTS, SECOND, observation

pytestmark = pytest.mark.apart

SHOP = """# HELP shop_seconds How long a request took.
# TYPE shop_seconds gauge
shop_seconds{quantile="0.95"} 0.012
shop_seconds{quantile="0.99"} 0.0480000001
shop_seconds{quantile="nan"} NaN
"""


class Shop:
    """A Prometheus and the file that it scrapes."""

    def __init__(self, server: Prometheus, folder: Path) -> None:
        self.url, self.server, self.file = f"http://{server.address}", server, folder / "shop.prom"

    def source(self, p99: str = 'shop_seconds{quantile="0.99"}', **more: Any) -> dict[str, Any]:
        queries = {"p95": 'shop_seconds{quantile="0.95"}', "p99": p99}
        return {"source": "prometheus", "url": self.url, "unit": "s", "queries": queries, **more}

    def ask(self, *arguments: Any, **more: Any) -> tuple[Any, Any]:
        source = latency.read_source("x", self.source(*arguments, **more))
        assert source is not None
        return latency_sources.ask(source)

    def wait(self, samples: int) -> None:
        limit = time.monotonic() + 60
        while len(self.server.ask("shop_seconds")) != samples:
            assert time.monotonic() < limit, "Prometheus has not scraped the file"
            time.sleep(0.3)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop") / "textfiles"
    folder.mkdir()
    (folder / "shop.prom").write_text(SHOP)
    with prometheus(folder) as server:
        found = Shop(server, folder)
        found.wait(3)
        yield found


GOOD = {"p95_ns": 12_000_000, "p99_ns": 48_000_001}


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("shop_seconds", "gave 3 samples; aggregate them to one"),
        ("no_such_series", "gave 0 samples; is there such a series, and is it fresh?"),
        ('shop_seconds{quantile="nan"}', "gave NaN; was there a request within its range?"),
        ("1 / 0", "gave +Inf"),
        ("sum(", "Prometheus refused it ("),
        ("shop_seconds[1m]", "gave 'matrix' (text); ask for a vector"),
        ('"text"', "gave 'string' (text)"),
        ('1000 * shop_seconds{quantile="0.99"} * 1e6', "is the unit right?"),
    ],
)
def test_what_prometheus_answers_is_used_only_where_it_is_one_number(shop: Shop, query: str, named: str) -> None:
    assert shop.ask() == (GOOD, None)
    assert shop.ask('max(shop_seconds{quantile=~"0.+"})', timeout=20, max_age=10)[0] == GOOD
    found, wrong = shop.ask(query)
    assert found is None and wrong.startswith(f"{shop.url}: the query for p99: ") and named in wrong


@pytest.mark.slow
def test_the_module_asks_for_many_hosts_and_the_gate_judges_them(shop: Shop, tmp_path: Path) -> None:
    sources = {"w1": shop.source(), "w2": shop.source("no_such_series"), "w3": {}}
    result = run_one(tmp_path, "latency_info", "--check", sources=sources)
    assert result["changed"] is False and result["hosts"]["w1"] == {"application": GOOD, "application_error": None}
    assert "gave 0 samples" in result["hosts"]["w2"]["application_error"] and set(result["hosts"]) == {"w1", "w2"}
    assert len(result["warnings"]) == 1 and result["warnings"][0].startswith(f"w2: {shop.url}")
    pair = {"before": observation(50 * SECOND), "after": observation()}
    task = {"changed": {"w1": pair, "w2": pair}, "contracts": CONTRACTS, "expected": {"*": {"exec_events": "full"}},
            "before_applications": result["hosts"], "after_applications": result["hosts"],
            "limits": {"application_p99_growth_ppm": 0}}  # fmt: skip
    _status, results, said = run_tasks(tmp_path, [{"ebpf.fleet.gate": task, "register": "gate"}])
    checks = {(one["host"], one["check"]): one for one in results["gate"]["checks"]}
    assert checks["w1", "application_p99"]["verdict"] == "pass", said
    assert checks["w2", "application_p99"]["verdict"] == checks["w2", "application_p95"]["verdict"] == "inconclusive"
    assert "gave 0 samples" in checks["w2", "application_p99"]["sentence"]
    assert results["gate"]["verdict"] == "inconclusive"


@pytest.mark.slow
def test_only_what_is_asked_from_the_controller_is_asked_there(shop: Shop, tmp_path: Path) -> None:
    here = {"source": "command", "argv": ["/bin/echo", json.dumps({"p95_ms": 1, "p99_ms": 2})]}
    sources = {"w1": shop.source(), "w2": here}
    both = run_one(tmp_path, "latency_info", sources=sources)["hosts"]
    assert both["w2"]["application"] == {"p95_ns": 1_000_000, "p99_ns": 2_000_000}
    assert set(run_one(tmp_path, "latency_info", sources=sources, only="controller")["hosts"]) == {"w1"}


@pytest.mark.slow
def test_a_source_that_cannot_be_is_refused_by_its_field(tmp_path: Path) -> None:
    result = run_one(tmp_path, "latency_info", sources={"w1": {"source": "prometheus", "url": "http://p"}})
    assert result["failed"] is True and result["reason_code"] == "EF_ARGUMENT"
    assert "sources.w1.queries: is missing; the source prometheus needs it" in result["msg"]


@pytest.mark.slow
def test_a_host_measures_its_own_application_at_the_end_of_the_window(tmp_path: Path) -> None:
    times: list[float] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        times.append(time.monotonic())
        respond(request, 200, json.dumps({"p95_ms": 1, "p99_ms": 2.5, "requests": 10}).encode())

    with serving(answer) as url:
        source = {"source": "http", "url": f"{url}/latency"}
        result = run_one(tmp_path, "observation_info", window=0.5, latency=source, state_dir=str(tmp_path))
    start, end = result["observation"]["start"], result["observation"]["end"]
    assert (start["application"], end["application"]) == (None, {"p95_ns": 1_000_000, "p99_ns": 2_500_000})
    assert len(times) == 1
    gone = run_one(tmp_path, "observation_info", window=0, latency=source, state_dir=str(tmp_path))
    assert "cannot be reached" in gone["observation"]["end"]["application_error"] and gone["warnings"]
    asked = run_one(tmp_path, "observation_info", window=0, latency={**source, "from": "controller"},
                    state_dir=str(tmp_path))  # fmt: skip
    assert (asked["observation"]["end"]["application"], asked["observation"]["end"]["application_error"]) == (
        None,
        None,
    )


def test_a_series_that_ended_is_no_longer_a_latency_and_a_server_that_is_down_is_said(shop: Shop) -> None:
    """The last test of this file: the series does not come back."""
    shop.file.unlink()
    shop.wait(0)
    found, wrong = shop.ask()
    assert found is None and "the query for p95: gave 0 samples" in wrong
    down = latency.read_source("x", {**shop.source(), "url": "http://127.0.0.1:9"})
    assert down is not None
    found, wrong = latency_sources.ask(down)
    assert found is None and wrong == "http://127.0.0.1:9: cannot be reached ([Errno 111] Connection refused)"
