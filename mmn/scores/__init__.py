"""What was captured -> the score of every unit for every noun, ranked, as tables; and how exact the sum of terms is.

After `reading`; `runs` writes the tables as shards.
"""
