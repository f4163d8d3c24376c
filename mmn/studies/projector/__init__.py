"""How rich what the projector makes is, and how alike images and texts are in the decoder behind it."""
