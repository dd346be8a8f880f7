"""Records as texts: written and searched where an index embeds them itself, and the models."""
