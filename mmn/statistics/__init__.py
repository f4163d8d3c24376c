"""Intervals, tests and corrections for many of them; plain functions of arrays, used by studies and figures."""
