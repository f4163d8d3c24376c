"""Whether units of a class of pictures know their class."""
