# SPDX-License-Identifier: GPL-3.0-or-later
"""What the service does when the machine is short of something for a while."""

from __future__ import annotations

import resource
import signal
import subprocess
from pathlib import Path
from typing import Iterator

import pytest

from tests.loader.bundles import Trust
from tests.loader.service import Service, feature_of, make_service, wait_for


@pytest.fixture
def service(loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path) -> Iterator[Service]:
    """A service with runqlat wanted; not started."""
    made = make_service(loader, tmp_path, trust, {"runqlat": feature_of(feature_objects, "runqlat")})
    made.want("runqlat")
    yield made
    if made.process is not None:
        made.stop(signal.SIGKILL)


def test_a_shortage_of_descriptors_is_over_when_it_is_over(service: Service) -> None:
    service.prefix = ("prlimit", "--nofile=16:1024")
    feature = service.start_settled()["features"]["runqlat"]
    assert feature["state"] == "disabled" and "tried again in 5 s" in feature["reason"], feature["reason"]
    assert service.process is not None
    resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (1024, 1024))
    found = service.wait_state("runqlat", "attached", 15)
    assert found["reason_code"] == "EF_OK"


def test_a_refusal_by_the_verifier_is_not_tried_again(
    loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path
) -> None:
    contract, objects = feature_of(feature_objects, "runqlat", ("full",))
    service = make_service(loader, tmp_path, trust, {"runqlat": (contract, objects)})
    service.prefix = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    service.want("runqlat")
    try:
        feature = service.start_settled()["features"]["runqlat"]
        assert feature["state"] == "disabled" and "tried again" not in feature["reason"]
    finally:
        service.stop(signal.SIGKILL)


def test_a_full_state_folder_is_said_once_and_its_end_once(service: Service) -> None:
    service.state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(service.state)], check=True)
    try:
        service.start_settled()
        filler = service.state / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(b"x" * 4096)
        stamp = service.now()["time_unix_ns"]
        wait_for(lambda: "cannot write" in service.journal(), "it says so")
        for _ in range(3):
            service.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
            subprocess.run(["sleep", "1.1"], check=True)
        assert service.journal().count("cannot write") == 1
        filler.unlink()
        wait_for(lambda: service.now()["time_unix_ns"] > stamp, "the status is written again")
        wait_for(lambda: service.journal().count("can be written again") == 1, "and that is said")
        assert service.feature("runqlat")["state"] == "attached", "a full disk detaches nothing"
    finally:
        service.stop(signal.SIGKILL)
        subprocess.run(["umount", str(service.state)], check=True)
