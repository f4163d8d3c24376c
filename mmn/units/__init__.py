"""One unit: the tokens that it writes, where in the picture it looks, and the object that it should look at.

After `scores`, for the studies.
"""
