"""Imports: Parquet files become the files of new namespaces, beside the log, then are attached."""
