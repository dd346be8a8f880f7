"""What nothing names any more: planned, taken in rounds, purged at once; what stays in use."""
