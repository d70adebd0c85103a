"""Small disks of their own for the data of the fault runs: to be filled, and to be given room again."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DISK_BYTES: Final = 6 << 30
"""Of each disk; memory is taken only for what is written."""


@dataclass
class Disk:
    """A place for the data of some processes."""

    path: Path
    mounted: bool = False

    def make(self) -> None:
        """Make the folder, and mount a disk of its own on it where that is allowed."""
        self.path.mkdir(parents=True)
        if os.geteuid() == 0:
            command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(self.path)]
            self.mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0

    def fill(self, room: int) -> None:
        """Leave room for so many bytes only."""
        here = os.statvfs(self.path)
        used = (here.f_blocks - here.f_bfree) * here.f_frsize
        self._resize(used + room)

    def free(self) -> None:
        """Give it its room back."""
        self._resize(DISK_BYTES)

    def _resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.path)], capture_output=True, check=True)

    def remove(self, *, keep: bool) -> None:
        """Unmount it; with `keep` what it held lies in the folder afterwards."""
        if not self.mounted:
            return
        aside = self.path.with_name(self.path.name + ".kept")
        if keep:
            shutil.copytree(self.path, aside)
        subprocess.run(["umount", "-l", str(self.path)], check=False)
        if keep:
            self.path.rmdir()
            aside.rename(self.path)
