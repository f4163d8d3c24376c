"""A folder or hub id -> `Model`: checkpoint, processor, adapter of its family, image tokens; edits of it (`deltas`).

The way of the data begins here and in `images`.
"""
