"""What is in the cache? DuckDB behind one class. SQL is here and in the `queries.py` of studies, and nowhere else.

`database` opens the file and says what is wrong with it, `migrations` holds the tables, `loading` takes shards in and
runs out. `queries` reads runs, `pictures` one picture, `neurons` one unit, `rankings` pairs of rankings: what several
studies ask. All, and the studies' own, are asked through `Store.ask` and take their cursor from `reader`. Nothing here
imports torch.
"""

from mmn.store.store import Store

__all__ = ["Store"]
