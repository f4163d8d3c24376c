"""Units switched off or put under noise: what is left of the noun and of the caption."""
