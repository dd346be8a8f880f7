"""Snapshots, branches and restores: how a namespace begins with another one's files."""
