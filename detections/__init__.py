"""Sigma to Polars: load, compile, plan, match, correlate."""
