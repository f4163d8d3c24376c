"""The dashboard: `main.py` is the entry; the pages lie in `pages/`. The wheel holds both in `mmn/dashboard/`."""
