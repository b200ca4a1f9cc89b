# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a JSON document that a person names, on the controller."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.bounded import refuse_irregular
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError


class Kind(NamedTuple):
    """What the file is: its name in a sentence, the code of its errors, and how one gets a good one."""

    name: str
    noun: str
    code: str
    remedy: str
    again: str


def read_object(path, kind):
    """The mapping in the file at ``path``, {} for no path; FleetError names the file and the remedy.

    A relative path is meant from where the command was typed.
    """
    if not path:
        return {}
    full = os.path.join(os.environ.get("PWD", os.getcwd()), os.path.expanduser(path))
    try:
        refuse_irregular(Path(full))
        with open(full, encoding="utf-8") as file:
            found = json.load(file)
    except OSError as error:
        raise FleetError(kind.code, f"{kind.name} {full}: {error.strerror}; {kind.remedy}", full) from error
    except (ValueError, RecursionError) as error:
        raise FleetError(kind.code, f"{kind.name} {full}: is not JSON; {kind.again}", full) from error
    if not isinstance(found, dict):
        raise FleetError(kind.code, f"{kind.name} {full}: is not a {kind.noun}; {kind.again}", full)
    return found
