# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts answered: facts through Ansible, and the loader's own words from ask.sh."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.matrix.bundles import Bundle
from tests.matrix.errors import MatrixError
from tests.matrix.places import HERE, OUT, WORK, Place, unpack_and_ask, write_inventory
from tests.support.play import ROOT, VENV, environment

ASK_SECONDS = 420.0
FACTS_SECONDS = 900.0
_FORKS = "5"


def capabilities(chosen: list[Place], bundle: Bundle) -> dict[str, dict[str, Any]]:
    """The capability facts of each host that answered, all asked in one play."""
    folder = WORK / "facts"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    hosts = WORK / "hosts.yml"
    write_inventory(chosen, hosts)
    variables = WORK / "variables.json"
    variables.write_text(json.dumps({
        "matrix_contracts": bundle.contracts, "matrix_btf_index": bundle.btf_index, "matrix_answers": str(folder),
    }))  # fmt: skip
    command = [str(VENV / "ansible-playbook"), str(HERE / "ask.yml"), "-i", str(hosts), "-f", _FORKS]
    with (OUT / "facts.log").open("w") as log, contextlib.suppress(subprocess.TimeoutExpired):
        # Who has not answered by then is missing from what is returned, as one that failed is.
        subprocess.run(
            [*command, "-e", f"@{variables}"], cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT, timeout=FACTS_SECONDS, check=False,
        )  # fmt: skip
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def parts(text: str) -> dict[str, str]:
    """The marked parts of what ask.sh printed."""
    pieces = re.split(r"^=== ([a-z_]+)\n", text, flags=re.MULTILINE)
    return {name: body.strip() for name, body in zip(pieces[1::2], pieces[2::2])}


def loader(place: Place, payload: Path) -> dict[str, Any]:
    """What a host's loader said: `check` and `status`, and `programs`, the ids that bpftool saw meanwhile."""
    began = time.monotonic()
    text = unpack_and_ask(place, payload, ASK_SECONDS)
    (WORK / f"{place.name}.txt").write_text(text)
    found = parts(text)
    try:
        programs = json.loads(found["programs"])
        answer = {"check": json.loads(found["check"]), "status": json.loads(found["status"])}
    except (KeyError, ValueError) as error:
        raise MatrixError(f"{place.name}: the loader gave no answer: {found.get('errors', text)[-800:]}") from error
    if not isinstance(programs, list):
        raise MatrixError(f"{place.name}: bpftool lists no programs: {found.get('errors', '')[-400:]}")
    seconds = round(time.monotonic() - began, 1)
    return {**answer, "programs": [program["id"] for program in programs], "seconds": seconds}
