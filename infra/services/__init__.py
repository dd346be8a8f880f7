"""Real Kafka, S3 and PostgreSQL as child processes on this machine, without Docker.

`python -m infra.services up` starts all three for a developer; the fixtures in
`tests/services.py` start the same classes on free ports for a test session.
"""
