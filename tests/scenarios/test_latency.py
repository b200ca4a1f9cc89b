# SPDX-License-Identifier: GPL-3.0-or-later
"""A release that slows an application: a real HTTP service under load, and a real Prometheus that scrapes it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.loader.prometheus import free_address, tool
from tests.loader.prometheus_server import Prometheus
from tests.scenarios.world import World, has_release, until
from tests.support.syshost import SysHost

PORT = 8088
# What customers ask for in a second: a load that is no burden to this machine.
REQUESTS = 25
WINDOW = 8
P99 = f'histogram_quantile(0.99, sum by (le) (rate(shop_seconds_bucket{{instance="NAME"}}[{WINDOW}s])))'
P95 = P99.replace("0.99", "0.95")
# It must double: what neighbours on this machine make of a percentile is less than what the release does.
LIMIT_PPM = 1_000_000


@contextlib.contextmanager
def shop(host: SysHost) -> Iterator[str]:
    """The service on a host, with its customers; yields its address."""
    host.path("/run/shop.py").write_text(Path(__file__).with_name("shop.py").read_text())
    address = f"{host.address}:{PORT}"
    service = subprocess.Popen(host.enter("python3", "/run/shop.py", host.address, str(PORT)), stdin=subprocess.DEVNULL)
    over = threading.Event()

    def buy() -> None:
        while not over.wait(1 / REQUESTS):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://{address}/", timeout=5).read()

    customers = threading.Thread(target=buy, daemon=True)
    try:
        until(lambda: reached(address), 20, f"the shop on {host.name} does not open")
        customers.start()
        yield address
    finally:
        over.set()
        host.run("pkill -KILL -x ef-shop")
        service.wait(10)


def reached(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextlib.contextmanager
def prometheus(folder: Path, shops: dict[str, str]) -> Iterator[Prometheus]:
    """A server that scrapes each shop every second under its host's name."""
    targets = [{"targets": [address], "labels": {"instance": name}} for name, address in shops.items()]
    (folder / "prometheus.yml").write_text(json.dumps({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [{"job_name": "shop", "static_configs": targets}],
    }))  # fmt: skip
    address = free_address()
    command = [str(tool("prometheus")), f"--config.file={folder}/prometheus.yml", f"--web.listen-address={address}",
               f"--storage.tsdb.path={folder}/data"]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        server = Prometheus(address, "")
        server.wait_until_up()
        yield server
    finally:
        process.kill()
        process.wait(timeout=10)


def p99(server: Prometheus, host: SysHost) -> float:
    """Seconds; NaN where no one has asked the shop for anything."""
    (answer,) = server.ask(P99.replace("NAME", host.name))
    return float(answer["value"])


def test_application_latency_regression(running: World, tmp_path: Path) -> None:
    bad = running.bad_feature("slow_sends")
    one, other = running.hosts
    with contextlib.ExitStack() as stack:
        shops = {host.name: stack.enter_context(shop(host)) for host in running.hosts}
        server = stack.enter_context(prometheus(tmp_path, shops))
        until(lambda: all(server.ask(P99.replace("NAME", host.name)) for host in running.hosts), 30, "nothing was sold")
        time.sleep(WINDOW)
        before = p99(server, one)
        source = {"source": "prometheus", "url": f"http://{server.address}", "unit": "s",
                  "queries": {"p95": P95.replace("NAME", "{{ inventory_hostname }}"),
                              "p99": P99.replace("NAME", "{{ inventory_hostname }}")}}  # fmt: skip
        played = running.roll_out(
            bad, ebpf_fleet_application_latency=source, limits={"application_p99_growth_ppm": LIMIT_PPM},
            ebpf_fleet_window_after=WINDOW, ebpf_fleet_bake=2,
        )  # fmt: skip
        assert played.rc == 2 and "EF_GATE_FAILED" in played.text, played.text
        assert running.failed_checks() == {"application_p99"}, "the one thing that is wrong with it"
        assert running.begun() == [one.name] and has_release(one, bad) and not has_release(other, bad)
        running.check(run=running.first)
        # Customers are served as before once it is gone.
        until(lambda: p99(server, one) < before * 1.5 + 0.005, 60, f"p99 stays above {before} s")
        print(f"p99 before {before * 1e3:.1f} ms, after the way back {p99(server, one) * 1e3:.1f} ms")
