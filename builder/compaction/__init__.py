"""Rewriting files: clusters split, merged, folded and repaired; deltas and id runs merged."""
