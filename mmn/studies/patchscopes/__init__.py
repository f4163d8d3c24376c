"""States of a captioning pass read by the same decoder in a prompt of text alone."""
