"""A run as one file to be read: `contents` gathers what is in it, `page` writes it as HTML."""
