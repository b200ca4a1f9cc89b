# SPDX-License-Identifier: GPL-3.0-or-later
"""The BCC collector's service with two features, and what stands for their programs and compilers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ansible_collections.ebpf.fleet.collectors.fleet_bcc.bundle import Bundle, Source
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.feature import Feature
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.service import Service

DIGEST = "a" * 64


def source(name: str = "probe", kind: str = "events", every: int = 3) -> Source:
    return Source(name, {"signals": [{"kind": kind, "name": "x", "sample_every": every}]}, {}, b"text")


class Live:
    """Stands for an attached feature: what was done to it, in `done`."""

    def __init__(self, links: tuple[int, ...] = (5, 6), feed: Any = None) -> None:
        self.done: list[str] = []
        self.links, self.feed = list(links), feed
        self.ran = False

    def cut(self) -> bool:
        links, self.links = self.links, []
        self.done.append("cut")
        return bool(links)

    def close(self) -> None:
        self.done.append("close")

    def sample(self, every: int) -> None:
        self.done.append(f"sample {every}")

    def prepare(self, every: int) -> None:
        self.done.append(f"prepare {every}")

    def attach(self) -> None:
        self.done.append("attach")


class Job:
    """Stands for a compiler that works: `answer` is what it hands over, None until then."""

    def __init__(self, answer: Any = None) -> None:
        self.done: list[str] = []
        self.answer = answer

    def poll(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def kill(self) -> None:
        self.done.append("kill")

    def close(self) -> None:
        self.done.append("close")


def options(folder: Path, **others: Any) -> argparse.Namespace:
    words = {name: str(folder / name) for name in ("state", "etc", "run", "log")}
    return argparse.Namespace(**words, interval=5, loader_status=str(folder / "loader.json"), **others)


def make_service(folder: Path) -> Service:
    """One with its folders, and two features of which none is attached."""
    made = Service(options(folder), folder / "bcc.py")
    for name in ("state", "log", "etc/kill.d", "run/kill.d"):
        (folder / name).mkdir(parents=True)
    sources = [source(), source("other")]
    made.bundle = Bundle({"digest": DIGEST}, DIGEST, ["probe", "other", "third"], sources)
    made.features = [Feature(each) for each in sources]
    return made


def listener(made: Service) -> list[str]:
    """Let publish() only be noted, in the list that comes back."""
    done: list[str] = []
    made.publish = lambda: done.append("publish")  # type: ignore[method-assign]
    return done
