"""What an edit, a LoRA or a fine-tune changed: concepts and units of two runs of the same pictures."""
