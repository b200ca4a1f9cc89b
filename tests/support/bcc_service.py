# SPDX-License-Identifier: GPL-3.0-or-later
"""The BCC collector's service with two features, and what stands for their programs and compilers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.collectors.fleet_bcc import service as service_file
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import Reason
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.bundle import Bundle, Source
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.feature import Feature
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.orders import Order, Orders
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.service import Service

DIGEST = "a" * 64
NO_BTF = Reason("EF_NO_BTF", "no BTF")
NONE = Orders([], [])
GLOBAL = Orders([Order("global", "/etc/kill.d/global")], [])


def told_by(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the journal and systemd are told from now on."""
    lines: list[str] = []
    monkeypatch.setattr(service_file, "say", lambda level, text: lines.append(f"<{level}>{text}"))
    monkeypatch.setattr(service_file, "notify", lines.append)
    return lines


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
