"""Plan of a scoring run -> shards on the disk, by an engine, resumed at any time; jobs that the dashboard starts.

After `scores`; `store` loads the shards, and studies go back to a run (`reopen`).
"""
