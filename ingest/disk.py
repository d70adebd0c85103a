"""Why a disk refuses, in words: a full one is what happens most, and everything that meets it goes on by itself."""

from __future__ import annotations

import errno
from typing import Final

DISK_FULL: Final = "the disk is full; it goes on by itself when there is room"


def disk_reason(error: OSError) -> str:
    """What to say of an error; a quota that is used up is a full disk."""
    return DISK_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
