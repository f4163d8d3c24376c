"""The scored run itself: its top units by layer, the agreement of scores, and what a logit is made of."""
