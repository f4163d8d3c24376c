"""A few units changed so that the model says another word, and what else changes."""
