"""What one tenant may ask of a process that it shares with others: rates, places and turns."""
