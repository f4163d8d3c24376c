"""From image tokens through units and attention to a noun: which units carry it, and whether they are enough."""
