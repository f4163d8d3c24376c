"""Sets of image tokens: those of an object and around it, the picture's last row, registers, the highest, random ones.

Every set is one truth for each image token, in the order of the prompt.

    object      any overlap of the token's stretch of the picture with the object's mask      Neo et al. 2025
    object+n    and those at most n steps away in its grid, diagonals included                Neo et al. 2025
    elsewhere   the object's tokens moved together, off the object: as compact, and no object  OURS
    registers   ‖x‖ > mean + 2 deviations over the picture's tokens, at the decoder's input   Neo et al. 2025
    last row    of the grid that ends last in the prompt                                      Neo et al. 2025

Neo et al. is arXiv 2410.07149 (ICLR 2025), by its released code (`llava-interp`, commit 7bd565a). For a picture of
several grids (crops and the whole) rings stay in each, and which row is the last is OURS.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from mmn.models.geometry import Grids
from mmn.names import ORIGINAL
from mmn.scores.equations import uniform_draw
from mmn.units.heat_maps import Mask, covered

Tokens = Bool[np.ndarray, " tokens"]


def object_tokens(mask: Mask, grids: Grids) -> Bool[np.ndarray, " tokens"]:
    """Those whose stretch of the picture holds a pixel of the object."""
    return covered(mask, grids) > 0


def ringed(tokens: Tokens, grids: Grids, steps: int) -> Bool[np.ndarray, " tokens"]:
    """`tokens`, and those at most `steps` rows and columns away from one of them in the same grid."""
    found = tokens.copy()
    for tile in range(len(grids.tiles)):
        here = [at for at, cell in enumerate(grids.cells) if cell is not None and cell.tile == tile]
        places = np.array([(cell.row, cell.column) for at in here if (cell := grids.cells[at])])
        inside = places[tokens[here]]
        distance = np.abs(places[:, None] - inside[None]).max(-1)  # of every token to every one inside
        found[here] |= (distance <= steps).any(1)
    return found


def moved(tokens: Tokens, grids: Grids, draw: Callable[[int], int]) -> Bool[np.ndarray, " tokens"] | None:
    """`tokens` of a picture's only grid moved by some rows and columns, all inside it and off where they were.

    `draw` chooses one of so many moves. None where no move does that, or the picture has several grids.
    """
    if len(grids.tiles) != 1:
        return None
    table = np.full(grids.tiles[0].shape, -1)
    for token, cell in enumerate(grids.cells):
        if cell is not None:
            table[cell.row, cell.column] = token
    shape, size = np.argwhere(tokens[table] & (table >= 0)), np.array(table.shape)
    moves = [np.array(move) - size + 1 for move in np.ndindex(*(2 * size - 1))]
    places = [place for move in moves if ((place := shape + move) >= 0).all() and (place < size).all()]
    free = [there for place in places if not tokens[there := table[place[:, 0], place[:, 1]]].any()]
    if not free:
        return None
    found = np.zeros(len(tokens), bool)
    found[free[draw(len(free))]] = True
    return found


def last_row(grids: Grids) -> Bool[np.ndarray, " tokens"]:
    """The last row of the grid whose tokens end last in the prompt."""
    last = next(cell for cell in reversed(grids.cells) if cell is not None)
    return np.array([cell is not None and (cell.tile, cell.row) == (last.tile, last.row) for cell in grids.cells])


def registers(embeddings: Float[np.ndarray, "tokens d"]) -> Bool[np.ndarray, " tokens"]:
    """Those whose norm is above the mean of the picture's by more than two of its standard deviations."""
    norms = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    return norms > norms.mean() + 2 * norms.std()


def highest(values: Float[np.ndarray, " tokens"], n: int) -> Bool[np.ndarray, " tokens"]:
    """The `n` of the highest value; of equal ones the first."""
    found = np.zeros(len(values), bool)
    found[np.argsort(-values, kind="stable")[:n]] = True
    return found


def random_tokens(
    seed: int, image_id: str, lemma: str, what: str, n: int, n_tokens: int, draw: int
) -> Bool[np.ndarray, " tokens"]:
    """`n` of all of a picture's tokens, by a hash of what they are drawn for; those that they stand beside included."""
    return highest(uniform_draw(seed, image_id, ORIGINAL, lemma, what, n_tokens, draw).numpy(), n)
