"""Whether a noun's top unit is its own."""
