"""What a noun's pictures have in common with each other: its states as a few concepts."""
