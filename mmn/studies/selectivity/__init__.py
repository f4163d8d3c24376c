"""Units of a class, in pictures of that class and in others."""
