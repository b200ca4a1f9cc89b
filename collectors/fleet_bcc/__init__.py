# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The BCC collector (docs/bcc.md), which bcc.py beside this folder starts. A bundle carries all of it.

Nothing here knows of Ansible or of the controller. Of module_utils it uses the few files that the bundle then carries
too. Only compiler.py loads BCC.
"""
