"""Backups of whole indexes: taken, restored and deleted by jobs that any process may take over."""
