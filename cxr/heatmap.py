"""From the logit's own map to a heat map: its colours, and its drawing over a radiograph.

Shape suffixes: h and w map rows and columns, H and W picture rows and columns, 3 colour channels.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FULL_EVIDENCE = 10.0
"""Map value at full colour: one cell in fifty that is this strong moves a mean-pooled logit by 0.2.

Under an `lse` pool a cell of 0 is neutral; one cell in fifty of half this strength adds up to a
logit of about 1.
"""

_MAX_ALPHA = 0.7


def _color_ramp() -> NDArray[np.float32]:
    """Return a ramp [256, 3] from deep blue over violet and orange to pale yellow; brightness rises
    throughout.
    """
    stops = np.array(
        [[20, 10, 80], [120, 20, 140], [220, 60, 80], [250, 150, 30], [252, 250, 160]], np.float32
    )
    positions = np.linspace(0, 1, len(stops))
    return np.stack(
        [np.interp(np.linspace(0, 1, 256), positions, stops[:, c]) for c in range(3)], axis=1
    ).astype(np.float32)


COLORS_256_3 = _color_ramp()


def draw_heatmap(cam_hw: NDArray[np.float32], picture_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw a map over its radiograph, on one scale for every image.

    Only evidence for the finding is drawn.  Its colour and strength follow the
    map's value in units of the logit, full at `FULL_EVIDENCE`, so that two pictures
    compare; nothing is stretched to the image's own maximum.

    Returns:
        `overlay_HW3`, uint8.
    """
    height, width = picture_HW.shape
    smooth = Image.fromarray(cam_hw).resize((width, height), Image.Resampling.BICUBIC)
    strength_HW = np.clip(np.asarray(smooth) / FULL_EVIDENCE, 0.0, 1.0)
    color_HW3 = COLORS_256_3[np.rint(strength_HW * 255).astype(np.uint8)]
    alpha_HW1 = (_MAX_ALPHA * strength_HW)[..., None]
    overlay_HW3 = picture_HW[..., None] * (1 - alpha_HW1) + color_HW3 * alpha_HW1
    return np.rint(overlay_HW3).astype(np.uint8)
