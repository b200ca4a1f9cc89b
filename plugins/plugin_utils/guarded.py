# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's module returns, before ansible-core shows any of it."""

from __future__ import annotations

from ansible import constants
from ansible.module_utils.json_utils import _filter_non_json_lines
from ansible.plugins.action import ActionBase


class GuardedAction(ActionBase):
    """An action whose host cannot paint the terminal by what ansible-core warns of.

    ansible-core warns of words behind the JSON, and of keys that only the controller may set
    (`add_host`, `_ansible_…`), with the host's own text as it is. Both are left out here.
    """

    def _parse_returned_data(self, res, profile):
        try:
            filtered, _noise = _filter_non_json_lines(res.get("stdout", ""), objects_only=True)
            res = {**res, "stdout": filtered}
        except ValueError:
            pass  # There is no JSON: that is told by the method below.
        data = super()._parse_returned_data(res, profile)
        for key in [key for key in data if is_internal(key)]:
            del data[key]
        return data


def is_internal(key):
    """Is this a key of a result that only the controller may set?"""
    return key in constants.INTERNAL_RESULT_KEYS or (key.startswith("_ansible_") and key != "_ansible_parsed")
