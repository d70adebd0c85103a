"""The lake (Delta/Parquet), and the alerts with their decisions (DuckDB)."""
