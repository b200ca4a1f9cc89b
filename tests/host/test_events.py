# SPDX-License-Identifier: GPL-3.0-or-later
"""From a figure to a kill: real Prometheus, Alertmanager and ansible-rulebook, a real loader, the files in docs/."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.events import senders

from tests.loader.prometheus import free_address, tool
from tests.support import rulebook
from tests.support.play import ROOT
from tests.support.rulebook import Rulebook, wait_until
from tests.support.sysfleet import Release, SysFleet, our_programs, status
from tests.support.syshost import SysHost

TOKEN, KEY = "t" * 40, "k" * 40
FOLDER = ROOT / "docs/event-driven"
HOT = "ebpf_fleet_program_run_seconds_total"
PROMETHEUS = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [rules.yml]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ["{alertmanager}"]}}]}}]}}
scrape_configs:
  - job_name: node
    static_configs: [{{targets: ["{exporter}"], labels: {{host: "{host}"}}}}]
"""


class Exporter:
    """A page of metrics on which the programs of features take a whole CPU, for features that the test names."""

    def __init__(self) -> None:
        self.features: list[str] = []
        outer = self

        class Page(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802  # the name that http.server calls
                lines = [f'{HOT}{{feature="{name}"}} {time.monotonic():.3f}\n' for name in outer.features]
                self.send_response(200)
                self.end_headers()
                self.wfile.write("".join(lines).encode())

            def log_message(self, *_arguments: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def as_installed(program: Path) -> list[str]:
    """The command of a program of the cache that reads its package's files under /usr/share, in a mount of its own."""
    share = program.parents[1] / "share"
    if share == Path("/usr/share"):
        return [str(program)]
    mount = f'mount -t overlay -o "lowerdir={share}:/usr/share" none /usr/share && exec "$@"'
    return ["unshare", "-m", "sh", "-c", mount, "sh", str(program)]


@contextlib.contextmanager
def monitored(folder: Path, exporter: Exporter, host: str, url: str) -> Iterator[Path]:
    """Prometheus and Alertmanager with the pages' files, quicker; yields the file with Alertmanager's token."""
    rules = (FOLDER / "rules.yml").read_text().replace("for: 2m", "for: 1s").replace("[1m]", "[10s]")
    (folder / "rules.yml").write_text(rules)
    token = folder / "token"
    route = (FOLDER / "alertmanager.yml").read_text()
    quicker = {"group_interval: 1m": "group_interval: 2s", "repeat_interval: 5m": "repeat_interval: 2s"}
    here = {"http://127.0.0.1:5001/alerts": url, "/etc/prometheus/ebpf-fleet-token": str(token)}
    for old, new in {**here, **quicker}.items():
        assert old in route
        route = route.replace(old, new)
    (folder / "alertmanager.yml").write_text(route)
    manager, server = free_address(), free_address()
    scrape = PROMETHEUS.format(alertmanager=manager, exporter=exporter.address, host=host)
    (folder / "prometheus.yml").write_text(scrape)
    subprocess.run([str(tool("promtool")), "check", "config", str(folder / "prometheus.yml")], check=True)
    commands = {
        "alertmanager": [*as_installed(tool("prometheus-alertmanager")), f"--config.file={folder}/alertmanager.yml",
                         f"--storage.path={folder}/alerts", f"--web.listen-address={manager}",
                         "--cluster.listen-address="],
        "prometheus": [str(tool("prometheus")), f"--config.file={folder}/prometheus.yml",
                       f"--storage.tsdb.path={folder}/data", f"--web.listen-address={server}"],
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        for name, command in commands.items():
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            process = subprocess.Popen(command, stdout=log, stderr=log)
            stack.callback(process.wait, 10)
            stack.callback(process.kill)
        yield token


def reduce_signed(port: int, host: str) -> int:
    """The reduced profile asked for by a sender that signs, as a relay would; the answer's status."""
    scope = f"feature=oom_kills,host={host}"
    labels = {"alertname": "FeatureLosesEvents", "ebpf_fleet_action": "reduce", "ebpf_fleet_scope": scope}
    alert = {"status": "firing", "labels": labels, "startsAt": "2026-11-28T12:00:00Z", "fingerprint": "a" * 16}
    body = json.dumps(
        {"version": "4", "status": "firing", "receiver": "r", "groupKey": "g", "alerts": [alert]}
    ).encode()
    now = int(time.time())
    headers = {"X-Ebpf-Fleet-Sender": "relay", "X-Ebpf-Fleet-Time": str(now),
               "X-Ebpf-Fleet-Signature": senders.sign(KEY.encode(), now, body)}  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/alerts", body, headers)
    with contextlib.closing(connection):
        return connection.getresponse().status


@pytest.fixture(scope="module")
def first(sysfleet: SysFleet) -> Release:
    return sysfleet.release("1.0.0", 1, ("tcp_retransmits", "oom_kills"))


def kills(book: Rulebook) -> int:
    return book.output().count("PLAY [Kill switch]")


def words(book: Rulebook) -> str:
    """What was printed, whatever lines it was broken into."""
    return " ".join(book.output().split())


def orders(host: SysHost) -> list[str]:
    return host.run("ls /run/ebpf-fleet/kill.d").stdout.split()


def attached(host: SysHost) -> bool:
    return {one["state"] for one in status(host)["features"].values()} == {"attached"}


@pytest.mark.slow
def test_an_alert_takes_one_feature_off_once_and_only_for_who_may_say_so(
    deployed: SysHost, sysfleet: SysFleet, first: Release, tmp_path: Path
) -> None:
    # Of the machine: setup installs it, and where that has run it may not be missing (tests/holes.yml).
    if rulebook.java() is None:
        pytest.skip("openjdk-17-jre-headless is not installed")
    wait_until(lambda: attached(deployed), "both features attached")
    own = {"ebpf_fleet_triage_window": 4, "ebpf_fleet_gate_limits": {"map_memory_bytes": 1000}}
    sysfleet.own[deployed.name] = {**own, "ebpf_fleet_forensics_dir": str(tmp_path)}
    exporter = Exporter()
    port = int(free_address().rpartition(":")[2])
    may = f"alertmanager token {TOKEN}\nrelay hmac {KEY}\n"
    with contextlib.ExitStack() as stack:
        book = stack.enter_context(rulebook.rulebook(tmp_path, port, sysfleet.inventory(), may, actions=1))
        token = stack.enter_context(monitored(tmp_path, exporter, deployed.name, book.url))

        # Who has another token is not heard, and nothing runs.
        token.write_text("w" * 40)
        exporter.features = ["tcp_retransmits"]
        wait_until(
            lambda: [one for one in book.lines() if one["decision"] == "stranger"], "a request with a wrong token"
        )
        assert kills(book) == 0 and orders(deployed) == [] and attached(deployed)

        # With the token the same alert, which Alertmanager sends again by itself, takes that feature off.
        token.write_text(TOKEN)
        wait_until(lambda: "All 1 hosts confirmed" in words(book), "the kill is confirmed")
        wait_until(lambda: book.output().count("PLAY RECAP") == kills(book), "the playbook ended")
        assert orders(deployed) == ["feature.tcp_retransmits"]
        states = {name: one["state"] for name, one in status(deployed)["features"].items()}
        assert states == {"tcp_retransmits": "killed", "oom_kills": "attached"}
        names = {one["name"] for one in our_programs()}
        assert "ef_oom_kill" in names and "ef_rtx" not in names, names
        (taken,) = book.alerts("taken")
        assert (taken["alert"], taken["scope"]) == (
            "FeatureTakesTooMuchCpu", f"feature=tcp_retransmits,host={deployed.name}",
        )  # fmt: skip

        # It stands, with its reason, as an order of a person does.
        listed = " ".join(sysfleet.play("rollback", {"state": "list"}).text.split())
        assert f"alert FeatureTakesTooMuchCpu since {taken['starts_at']}, fingerprint {taken['fingerprint']}" in listed
        assert "1 confirmed" in listed and f"scope=feature=tcp_retransmits,host={deployed.name}" in listed

        # It goes on to fire, and is not acted on again.
        runs, again = kills(book), len(book.alerts("duplicate"))
        wait_until(lambda: len(book.alerts("duplicate")) > again + 2, "Alertmanager sent it again")
        assert kills(book) == runs and len(book.alerts("taken")) == 1

        # The reduced profile, of the one feature that was named.
        assert reduce_signed(port, deployed.name) == 200
        wait_until(
            lambda: "PLAY [Triage]" in book.output() and book.output().count("PLAY RECAP") > runs, "triage ended"
        )
        limits = json.loads(deployed.must("cat /etc/ebpf-fleet/policy.json"))["features"]
        assert set(limits) == {"oom_kills"}, book.output()
        assert orders(deployed) == ["feature.tcp_retransmits"], "nothing more was disabled"

        # A flood is bounded: one kill was taken, and there is no second.
        exporter.features = ["tcp_retransmits", *(f"flood{at}" for at in range(5))]
        wait_until(lambda: len({one["scope"] for one in book.alerts("limited")}) == 5, "five scopes are limited")
        assert {line["status"] for line in book.lines() if line["decision"] == "limited"} == {429}
        assert (
            kills(book) == runs and orders(deployed) == ["feature.tcp_retransmits"] and len(book.alerts("taken")) == 2
        )
    exporter.server.shutdown()


def test_the_files_of_the_page_are_taken_by_prometheus_own_tools(tmp_path: Path) -> None:
    (tmp_path / "ebpf-fleet-token").write_text(TOKEN)
    for command in ([str(tool("promtool")), "check", "rules", str(FOLDER / "rules.yml")],
                    [str(tool("amtool")), "check-config", str(FOLDER / "alertmanager.yml")]):  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "SUCCESS" in done.stdout, done.stdout + done.stderr
