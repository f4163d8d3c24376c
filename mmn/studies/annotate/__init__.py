"""What units write, and whether they look at their noun's object."""
