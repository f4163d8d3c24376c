"""Pictures and a model -> captions, what the units did while they were written (`hooks`), and the captions' nouns.

After `models` and `images`; `scores` takes it from here.
"""
