"""What each module would say of a noun alone, as VisEdit reads it, beside the budget that adds up."""
