"""A noun's top unit, scored for other nouns."""
