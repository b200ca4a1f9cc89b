# SPDX-License-Identifier: GPL-3.0-or-later
"""Every scenario that a rollout may meet, on real hosts, and what holds at the end of each."""
