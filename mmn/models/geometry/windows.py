"""The picture cut into windows whose size fits it, or that overlap: Step 3.7, Molmo 2."""

from __future__ import annotations

from mmn.models.geometry.crops import crop_by_crop
from mmn.models.geometry.grid_inputs import GridInputs, spans
from mmn.models.geometry.grids import Axis, Grid, Grids, cells_of


def windows_and_whole(inputs: GridInputs) -> Grids:
    """Square windows of the picture, row by row, then the whole of it, each squeezed to a square (Step 3.7).

    The picture is first squeezed to a whole number of windows. A narrow strip is laid into the first corner of a
    square, and that is seen.
    """
    n_rows, n_columns, box = _windows(inputs)
    stride = inputs.processor.vision_patch_size * inputs.processor.downsampler_stride
    n_whole, n_window = inputs.canvas[0] // stride, inputs.processor.patch_size // stride
    whole = Grid.even(n_whole, n_whole, box)
    if not n_rows:
        return Grids((whole,), tuple(cells_of(0, whole)))
    canvas = Grid.even(n_rows * n_window, n_columns * n_window, box)
    cells = crop_by_crop(0, (n_rows, n_columns), (n_window, n_window))
    return Grids((canvas, whole), (*cells, *cells_of(1, whole)))


def _windows(inputs: GridInputs) -> tuple[int, int, tuple[float, float, float, float]]:
    """Rows and columns of windows, by the processor's own plan, and the box that they and the whole cover."""
    height, width = inputs.lengths
    plan = getattr(inputs.processor, "_plan_patches", None)
    if plan is None:
        raise inputs.refusal("it cuts pictures by a rule that was not checked")
    *_, n_columns, n_rows, is_padded = plan(width, height, inputs.processor.size["height"], inputs.processor.patch_size)
    n_said = int(inputs.inputs["num_local_patches"][0])
    if n_said != n_rows * n_columns:
        raise inputs.refusal(f"{n_said} windows where {n_rows} × {n_columns} are expected")
    side = float(max(height, width))
    return n_rows, n_columns, (0.0, 0.0, side, side) if is_padded else inputs.whole


def whole_and_overlapping(inputs: GridInputs) -> Grids:
    """The picture squeezed onto one square, then onto a canvas of crops that overlap, whose patches each count once;
    patches are pooled (Molmo 2).
    """
    processor = inputs.processor
    side = int(processor.size["height"])
    *_, height, width = inputs.rule("compute_crop_geometry")(
        *inputs.lengths, processor.max_crops, processor.overlap_margins, side, processor.patch_size
    )
    whole, canvas = _pooled(inputs, (side, side)), _pooled(inputs, (height, width))
    expected, said = [*whole.shape, *canvas.shape], inputs.inputs["image_grids"][0].tolist()
    if said != expected:
        raise inputs.refusal(f"image_grids is {said}, not {expected}")
    return Grids((whole, canvas), (*cells_of(0, whole), *cells_of(1, canvas)))


def _pooled(inputs: GridInputs, canvas: tuple[int, int]) -> Grid:
    """The whole picture on a canvas of (height, width) pixels, its patches pooled."""
    rows, columns = (
        _pooled_axis(spans(n_pixels, inputs.processor.patch_size), pool, length / n_pixels)
        for length, n_pixels, pool in zip(inputs.lengths, canvas, inputs.processor.pooling_size, strict=True)
    )
    return Grid(rows, columns)


def _pooled_axis(patches: Axis, pool: int, scale: float) -> Axis:
    """Patches joined by `pool`; where they do not come out even, the first and the last are of fewer."""
    n = len(patches)
    first = -((-n % pool) // 2)
    groups = (patches[max(start, 0) : start + pool] for start in range(first, n, pool))
    return tuple((group[0][0] * scale, group[-1][1] * scale) for group in groups)
