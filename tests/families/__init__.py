"""Every image-text-to-text type of transformers as a tiny random model, and what its text decoder is made of."""
