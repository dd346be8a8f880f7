"""Pinecone's filter language: parse (`parse`), evaluate on a record (`row`), on columns (`columns`), prune (`statistics`)."""
