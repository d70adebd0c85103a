"""The name under which sigma-cli finds our Polars backend; the work is done in `detections`."""

from __future__ import annotations

from sigma.backends.polars.backend import PolarsBackend

backends = {"polars": PolarsBackend}

__all__ = ["PolarsBackend", "backends"]
