"""Former names of `mmn.intervals`, which no longer resamples."""

from mmn.intervals import draw_intervals, interval_table, mean_intervals, ratio_intervals

__all__ = ["draw_intervals", "interval_table", "mean_intervals", "ratio_intervals"]
