"""The name under which sigma-cli finds our Polars backend; the work is done in `detections`."""
