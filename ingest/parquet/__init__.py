"""Parquet files as records: decoded and judged in a process of its own."""
