"""Words that charts, tables and pages share. No chart library here: pages without charts import it, too."""

from __future__ import annotations


def k_text(k: int, n_units: int) -> str:
    """The words for a k: the number, which means nothing alone, and its share of all units: `43 (1.4 %)`."""
    share = 100 * k / n_units
    return f"{k:,} ({share:.0f} %)" if share >= 10 else f"{k:,} ({share:.2g} %)"
