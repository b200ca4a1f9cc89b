# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill orders: which of them hold on this host."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

KILL_CODES = ("EF_KILLED_GLOBAL", "EF_KILLED_FEATURE", "EF_KILLED_FAMILY")
FAMILY = re.compile(r"(?:[A-Za-z0-9._]+(?:-[A-Za-z0-9._]+)*-)?[0-9]+\.[0-9]+")


class Order(NamedTuple):
    """One kill order that holds on this host."""

    scope: str
    path: str

    @property
    def code(self) -> str:
        if self.scope == "global":
            return "EF_KILLED_GLOBAL"
        return "EF_KILLED_FAMILY" if self.scope.startswith("family.") else "EF_KILLED_FEATURE"


class Orders(NamedTuple):
    """What both kill.d folders say."""

    orders: list[Order]
    unknown: list[str]

    def everything(self) -> Order | None:
        """The order that keeps everything off."""
        for prefix in ("global", "family."):
            for order in self.orders:
                if order.scope.startswith(prefix):
                    return order
        return None

    def of_feature(self, feature: str) -> Order | None:
        """The order that keeps this feature off."""
        named = [order for order in self.orders if order.scope == f"feature.{feature}"]
        return self.everything() or (named[0] if named else None)


def judge_order(name: str, families: list[str], features: list[str] | None) -> bool | None:
    """True: holds; False: is of another host; None: was mistyped. `features` None: every name is one."""
    kind, _dot, value = name.partition(".")
    if name == "global":
        return True
    if kind == "feature" and value:
        return True if features is None or value in features else None
    if kind == "family" and FAMILY.fullmatch(value):
        return value in families
    return None


def read_orders(folders: list[Path], families: list[str], features: list[str] | None) -> Orders:
    """Both folders. One that is not there holds none; one that cannot be read is an order `global`."""
    orders, unknown = [], []
    for folder in folders:
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            continue
        except OSError:
            orders.append(Order("global", str(folder)))
            continue
        for name in names:
            path = str(folder / name)
            held = None if name.startswith(".") else judge_order(name, families, features)
            if held:
                orders.append(Order(name, path))
            elif held is None and not name.startswith("."):
                unknown.append(path.encode("utf-8", "replace").decode("utf-8"))
    return Orders(sorted(orders, key=lambda order: order.path), sorted(unknown))
