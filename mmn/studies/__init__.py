"""The papers' claims as experiments on a run that is scored already; one file for each.

Each goes through the run's batches again (`mmn.runs.reopen`), writes what it measured as shards of the run, with its
control beside it, and is resumed by the same call. Definitions: METHODS, Experiments; the tables: `docs/schema.md`.
"""
