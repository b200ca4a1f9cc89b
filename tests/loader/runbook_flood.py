# SPDX-License-Identifier: GPL-3.0-or-later
"""A host whose events one user floods while a budget is exceeded: what the page on floods asks about."""

from __future__ import annotations

import contextlib
import signal
import tempfile
from pathlib import Path
from typing import Any, Iterator, NamedTuple

from tests.load.execs import Execs, copy_as
from tests.loader.bundles import Trust
from tests.loader.runbook_world import World
from tests.loader.service import feature_of, make_service, wait_for

NAME = "exec_events"
FLOODER = 60001
POLICY = {"schema": "ebpf.fleet/policy/v1", "features": {NAME: {"cpu_millicores": 1}}}


class Flooded(NamedTuple):
    """The world, who flooded it, and the step that the budget took."""

    world: World
    uid: int
    step: str


@contextlib.contextmanager
def flooded_world(loader: Path, objects: Path, folder: Path, key: Path) -> Iterator[Flooded]:
    """The world while it is flooded and degraded."""
    features = {NAME: feature_of(objects, NAME)}
    service = make_service(loader, folder, Trust(folder / "trust", key), features, budgets=True)
    service.allow(POLICY)
    service.want(NAME)
    with tempfile.TemporaryDirectory(prefix="ef-flood-") as programs:
        Path(programs).chmod(0o755)
        load: Execs | None = None
        try:
            service.start_settled()
            load = Execs(copy_as(Path(programs), "ef-flood"), [FLOODER], 60, 2)

            def ready() -> dict[str, Any] | None:
                found = service.fresh_status()["features"][NAME]
                return found if found["degraded"] and (found["fairness"] or {}).get("top") else None

            found = wait_for(ready, "it is thinned and degraded", 60)
            load.process.kill()
            load.process.wait()
            step = wait_for(ready, "it still is", 5)["degraded"]["step"]
            yield Flooded(World(service), FLOODER, step or found["degraded"]["step"])
        finally:
            if load is not None:
                load.process.kill()
                load.process.wait()
            if service.process is not None:
                service.stop(signal.SIGKILL)
