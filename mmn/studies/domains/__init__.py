"""Which units belong to a domain of pictures, and which to text or to the picture itself."""
