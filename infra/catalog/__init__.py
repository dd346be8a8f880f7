"""The control plane's database: projects, API keys, indexes, the log's identity. SQLite or
PostgreSQL.
"""
