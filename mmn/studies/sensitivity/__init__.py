"""How well the words of a noun's top units fit the noun, the caption and the picture."""
