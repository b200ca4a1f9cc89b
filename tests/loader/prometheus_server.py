# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Prometheus over a real node_exporter over the loader's own file: what a runbook's query answers."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Iterator

from tests.loader.prometheus import free_address, node_exporter, tool

CONFIG = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: node
    static_configs: [{{targets: ["{target}"]}}]
"""


class Prometheus:
    """A server that scrapes one host, which is called `instance`."""

    def __init__(self, address: str, instance: str) -> None:
        self.address, self.instance = address, instance

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The query's vector: [{"metric": labels, "value": figure}]. Fails with Prometheus' words on a bad query."""
        url = f"http://{self.address}/api/v1/query?" + urllib.parse.urlencode({"query": query})
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                document = json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 400:
                raise  # it is not ready yet
            raise AssertionError(f"{query}: {error.read().decode()}") from error
        return [{"metric": one["metric"], "value": float(one["value"][1])} for one in document["data"]["result"]]

    def wait_until_up(self) -> None:
        """Until it has scraped the host."""
        limit = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                if any(one["value"] == 1 for one in self.ask("up")):
                    return
            assert time.monotonic() < limit, "Prometheus has scraped nothing"
            time.sleep(0.2)


@contextlib.contextmanager
def prometheus(textfiles: Path) -> Iterator[Prometheus]:
    """A server over a node_exporter that reads this folder; both end with the context."""
    folder = textfiles.parent / "prometheus"
    folder.mkdir()
    with node_exporter(textfiles) as url:
        instance = urllib.parse.urlparse(url).netloc
        (folder / "prometheus.yml").write_text(CONFIG.format(target=instance))
        address = free_address()
        command = [str(tool("prometheus")), f"--config.file={folder}/prometheus.yml", f"--web.listen-address={address}"]
        command += [f"--storage.tsdb.path={folder}/data"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            server = Prometheus(address, instance)
            server.wait_until_up()
            yield server
        finally:
            process.kill()
            process.wait(timeout=10)
