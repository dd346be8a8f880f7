"""News between the roles: committed manifests and checkpoints, and who serves a partition."""
