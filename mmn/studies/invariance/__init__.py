"""Units that write a noun again: of a picture whose tokens are shuffled, and of other pictures of the noun."""
