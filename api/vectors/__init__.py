"""The data plane: records and namespaces of one index."""
