"""Which method finds the units that matter? Planted units, measured effects, one protocol for every ranking."""
