"""Windows of decoder layers, scaled to the model's depth: three thirds, the two that lie between them, and all.

A layer l of L is in a window from a to b where a ≤ (l + ½) / L < b: thirds have each layer once. Neo et al. 2025 block
layers 0–9, 11–20, 21–31, 5–14 and 15–24 of 32; the same shares of every depth are OURS.
"""

from __future__ import annotations

from typing import Final

from mmn.studies.image_tokens.tables import WINDOWS

_ENDS: Final = dict(zip(WINDOWS, ((0, 2), (1, 3), (2, 4), (3, 5), (4, 6), (0, 6)), strict=True))  # in sixths


def layer_windows(n_layers: int) -> dict[str, range]:
    """By window its layers; those that hold none, or just those of a window before, are left out."""
    found: dict[str, range] = {}
    for window, (first, end) in _ENDS.items():
        inside = [layer for layer in range(n_layers) if first * n_layers <= 6 * layer + 3 < end * n_layers]
        if inside and (layers := range(inside[0], inside[-1] + 1)) not in found.values():
            found[window] = layers
    return found
