"""The units that write each noun: their layers, their rankings by every score, and where a logit comes from."""
