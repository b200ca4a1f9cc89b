# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill orders while something holds the loader up: a disk, a journal, an unlucky moment."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.loader.bundles import Trust
from tests.loader.service import BOTH, Service, both_wanted, links_in_kernel, wait_for

HELD_UP_OFF_SECONDS = 3.0  # two of the guard's checks, every 100 ms, and what a busy machine adds
SLOW_WATCH_US = 30_000
SLOW_WATCH = ("strace", "-D", "-qq", "-o", "/dev/null", "-e", f"inject=inotify_add_watch:delay_exit={SLOW_WATCH_US}")


@pytest.fixture
def service(loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path) -> Iterator[Service]:
    """A service with both features wanted, that looks by itself once an hour; not started."""
    yield from both_wanted(loader, tmp_path, trust, feature_objects)


def link_ids(status: dict[str, Any], *names: str) -> set[int]:
    """The links of these features, which must be in the kernel."""
    links = {int(each) for name in names for each in status["features"][name]["links"]}
    assert links and links <= {each["id"] for each in links_in_kernel()}
    return links


def wait_detached(links: set[int], what: str) -> None:
    """Wait until the kernel has none of these links, by bpftool: then their programs run no more."""
    wait_for(lambda: not links & {each["id"] for each in links_in_kernel()}, what, HELD_UP_OFF_SECONDS)


def read_waiting(pipe: int) -> bytes:
    """All that waits in a pipe."""
    os.set_blocking(pipe, False)
    data = b""
    try:
        while True:
            data += os.read(pipe, 65536)
    except BlockingIOError:
        return data


@pytest.fixture
def own_disk(service: Service) -> Iterator[Path]:
    """The log folder is a file system of its own, that can be frozen."""
    image = service.folder / "disk"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(service.log)], check=True)
    yield service.log
    subprocess.run(["fsfreeze", "-u", str(service.log)], check=False, stderr=subprocess.DEVNULL)
    service.stop(signal.SIGKILL)
    subprocess.run(["umount", str(service.log)], check=True)


def hold_up(service: Service, disk: Path) -> None:
    """Freeze the disk and wait until the loader hangs in a write to it."""
    subprocess.run(["fsfreeze", "-f", str(disk)], check=True)
    subprocess.run(["true"], check=True)
    stat = Path(f"/proc/{service.pid}/stat")
    wait_for(lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "D", "the loader hangs in a write")


def test_an_order_is_obeyed_while_the_disk_hangs(service: Service, own_disk: Path) -> None:
    links = link_ids(service.start_settled(), *BOTH)
    hold_up(service, own_disk)
    path = service.order("global")
    wait_detached(links, "the links go although the loader hangs")
    # The guard did that, without a heap of its own: one takes 64 MiB of addresses.
    assert int(Path(f"/proc/{service.pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE") < 64 << 20
    subprocess.run(["fsfreeze", "-u", str(own_disk)], check=True)
    for name in BOTH:
        counters = service.wait_state(name, "killed")["counters"]
        assert counters["produced"] == counters["delivered"] + counters["dropped"] + counters["sampled_out"]
    path.unlink()
    for name in BOTH:
        assert service.wait_state(name, "attached")["links"]


def test_an_order_that_came_and_went_while_the_disk_hung(service: Service, own_disk: Path) -> None:
    before = service.start_settled()
    runqlat, others = link_ids(before, "runqlat"), link_ids(before, "exec_events")
    hold_up(service, own_disk)
    path = service.order("feature.runqlat")
    wait_detached(runqlat, "the links of runqlat go")
    path.unlink()
    subprocess.run(["fsfreeze", "-u", str(own_disk)], check=True)
    wait_for(lambda: set(service.feature("runqlat")["links"]) - runqlat, "it is attached again")
    assert len(link_ids(service.now(), "runqlat")) == 3
    assert link_ids(service.now(), "exec_events") == others, "what was not meant goes on"


def test_a_journal_that_nobody_reads_stops_nothing(service: Service) -> None:
    """The loader's stderr is a full pipe: its messages are lost and counted, all else goes on."""
    reader, writer = os.pipe()
    service.process = subprocess.Popen(service.command(), stderr=writer)
    links = link_ids(service.settled(), *BOTH)
    os.set_blocking(writer, False)
    for size in (4096, 1):
        try:
            while True:
                os.write(writer, b"x" * size)
        except BlockingIOError:
            pass  # it is full
    os.set_blocking(writer, True)  # the loader has the same end
    service.order("mistyped")  # the loader has something to say
    wait_for(lambda: service.now()["kill_unknown"], "the status goes on")
    service.order("global")
    wait_detached(links, "the links go")
    service.wait_state("runqlat", "killed")
    assert b"global" not in read_waiting(reader), "what was lost comes no more"
    (service.run / "kill.d" / "global").unlink()
    service.wait_state("runqlat", "attached")
    said: list[bytes] = []

    def talks() -> bool:
        said.append(read_waiting(reader))
        return b"runqlat: attached" in b"".join(said)

    wait_for(talks, "it talks again")
    assert b"messages were lost" in b"".join(said)
    os.close(reader)
    os.close(writer)


@pytest.mark.slow
def test_a_folder_made_while_the_watch_is_made_is_watched(service: Service) -> None:
    """`mkdir -p` makes RUN, which wakes the loader, and then RUN/kill.d while it sets up its watches."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed: it slows inotify_add_watch(2) down so that the moment is hit")
    service.prefix = SLOW_WATCH
    service.start_settled()
    for step in range(10):
        shutil.rmtree(service.run)
        wait_for(lambda: not service.now()["kills"], "the order is released")
        service.wait_state("runqlat", "attached")
        time.sleep(12 * SLOW_WATCH_US / 1e6)  # until its watches stand
        service.run.mkdir()
        time.sleep(step * SLOW_WATCH_US / 1e6)
        (service.run / "kill.d").mkdir()
        time.sleep(12 * SLOW_WATCH_US / 1e6)
        service.order("global")
        service.wait_state("runqlat", "killed", 5)
