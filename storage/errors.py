"""What can go wrong in storage, each error naming the file or table and the cause.

StorageError
├── LakeError           an events table could not be written or read
├── AlertDecodeError    a bus value is not an alert: quarantine it with this reason
└── StoreError          the alert store could not be opened, read or written
    ├── StoreHeld           another process has its file open
    ├── AlertNotFound       no alert has this id
    ├── DecisionConflict    another analyst decided in between
    └── CursorError         a page cursor that this store did not give out
"""

from __future__ import annotations


class StorageError(Exception):
    """Root of every error that storage raises on purpose."""


class LakeError(StorageError):
    """An events table could not be written or read; nothing of it counts as durable."""


class AlertDecodeError(StorageError, ValueError):
    """Bytes that are not an alert."""


class StoreError(StorageError):
    """The alert store could not do what was asked."""


class StoreHeld(StoreError):  # noqa: N818 - reads as what it says
    """Another process has the store's file open, and only one may."""


class AlertNotFound(StoreError):  # noqa: N818 - reads as what it says
    """No alert has this id."""


class DecisionConflict(StoreError):  # noqa: N818 - reads as what it says
    """The alert no longer stands where the analyst saw it: show the new state and ask again."""


class CursorError(StoreError, ValueError):
    """A page cursor that this store did not give out."""
