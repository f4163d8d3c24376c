"""Words that charts, tables and pages share. No chart library here: pages without charts import it, too."""

from __future__ import annotations


def k_text(k: int, n_units: int) -> str:
    """k as a number and as a share of all units, `43 (1.4 %)`; the share to two digits, for k means nothing alone."""
    share = 100 * k / n_units
    return f"{k:,} ({share:.0f} %)" if share >= 10 else f"{k:,} ({share:.2g} %)"
