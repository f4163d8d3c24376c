"""What keeps the program whole whatever it is given: limits, files that are written whole or not at all, roots, names.

The lowest room: nothing here knows of models or tables.
"""
