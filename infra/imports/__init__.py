"""Where imports may read from, and reading there."""
