# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Standard output as Ansible writes to it, and never silent.

On a terminal a line of state stands below what was displayed; elsewhere it is printed where nothing was for long.
Everything that Ansible displays goes through here, and nothing in it that a terminal would obey is passed on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time

from ansible_collections.ebpf.fleet.plugins.module_utils.report.stage_lines import clean

# Ten seconds without a sign are too many.
SILENCE_SECONDS = 9
TICK_SECONDS = 1
WIPE = "\r\033[K"


class Screen:
    """Takes the display of an ansible process; `status(now)` gives the line of what is waited for, or an empty text."""

    def __init__(self, display, status):
        self.display, self.status = display, status
        self.original = display.display
        self.live = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.lock = threading.RLock()
        self.process = os.getpid()
        self.last = time.monotonic()
        self.drawn = ""
        self.trusting = False
        self.over = threading.Event()
        display.display = self.shown
        threading.Thread(target=self.beat, daemon=True).start()

    def shown(self, msg, color=None, stderr=False, screen_only=False, log_only=False, newline=True, caplevel=None):
        """In place of Display.display; a worker's messages come here through the main process."""
        if os.getpid() != self.process:
            self.original(msg, color, stderr, screen_only, log_only, newline, caplevel)
            return
        if not self.trusting:
            # Ansible's own prompt of a pause ends in a carriage return.
            msg = "\n".join(clean(msg.rstrip("\r"))) + ("\n" if msg.endswith("\n") and msg.strip("\n") else "")
        with self.lock:
            if not log_only:
                self.wipe()
                self.last = time.monotonic()
            self.original(msg, color, stderr, screen_only, log_only, newline, caplevel)
            sys.stdout.flush()

    @contextlib.contextmanager
    def trusted(self):
        """What is displayed within is our own, colours and all."""
        with self.lock:
            self.trusting = True
            try:
                yield
            finally:
                self.trusting = False

    def wipe(self):
        if self.drawn:
            sys.stdout.write(WIPE)
            self.drawn = ""

    def beat(self):
        while not self.over.wait(TICK_SECONDS):
            with self.lock:
                self.tick(time.monotonic())

    def tick(self, now):
        """Draw the line of state again, or print it where nothing was printed for long."""
        text = self.status(now)
        if self.live:
            width = shutil.get_terminal_size().columns
            text = "" if now - self.last < TICK_SECONDS else text[: max(1, width - 1)]
            if text and text != self.drawn:
                self.wipe()
                sys.stdout.write(text)
                sys.stdout.flush()
                self.drawn = text
        elif text and now - self.last >= SILENCE_SECONDS:
            self.last = now
            sys.stdout.write(f"  ... {text}\n")
            sys.stdout.flush()

    def close(self):
        """The end: nothing is drawn any more."""
        self.over.set()
        with self.lock:
            self.wipe()
            sys.stdout.flush()
