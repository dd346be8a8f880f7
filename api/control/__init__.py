"""The control plane: indexes, in the classic shape and in that of API 2026-07."""
