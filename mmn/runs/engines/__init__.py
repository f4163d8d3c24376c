"""Where a run is carried out. Every engine writes the same shards; none touches the database."""
