"""What units write, and where in a picture they look, against the objects in it."""
