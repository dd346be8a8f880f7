"""Pinecone's filter language: parse it, evaluate it on a record (`row`) and on columns, prune."""
