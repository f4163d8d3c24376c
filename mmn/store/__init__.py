"""What is in the cache? DuckDB behind one class; the only SQL of the project is in this package.

`database` opens the file and says what is wrong with it, `migrations` holds the tables, `loading` takes shards in and
runs out. `queries` reads runs and layers, `pictures` one picture, `neurons` one unit, `rankings` pairs of rankings;
each takes its cursor from `reader`. Nothing here imports torch.
"""

from mmn.store.store import Store

__all__ = ["Store"]
