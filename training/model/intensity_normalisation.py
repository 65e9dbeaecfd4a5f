"""Normalise an image's intensities before a backbone reads it.

Shape suffixes: N images, 1 and C channels, H and W input rows and columns, h and w map rows and
columns.
"""

from torch import Tensor
from torch.nn import functional

from training.model.backbone import Backbone
from training.recipe.schema import IntensityNormalisation

_LEAST_SPREAD = 0.1
"""Added to the standard deviation, so that a blank image is not amplified to noise. A radiograph's
is about 1 at this point.
"""


class OwnIntensityNormalisation(Backbone):
    """A backbone that normalises an image's intensities first, so that exposure and contrast do not
    matter.

    `image` subtracts the image's mean and divides by its standard deviation. `high-pass` first
    subtracts the mean of the neighbourhood, so that only edges and texture are left.
    """

    def __init__(self, normalisation: IntensityNormalisation, backbone: Backbone) -> None:
        super().__init__()
        self.normalisation, self.backbone, self.channels = (
            normalisation,
            backbone,
            backbone.channels,
        )

    def forward(self, image_N1HW: Tensor) -> Tensor:
        """Return the backbone's maps of the normalised image."""
        centred = _about_zero(
            _about_zero(image_N1HW)
        )  # twice: what rounding leaves of a blank image would be blown up
        if self.normalisation == "high-pass":
            centred = centred - _neighbourhood_mean(centred)
        spread_N111 = centred.square().mean(dim=(2, 3), keepdim=True).sqrt()
        features: Tensor = self.backbone(centred / (spread_N111 + _LEAST_SPREAD))
        return features

    def prepare_for_export(self) -> None:
        """Prepare the backbone."""
        self.backbone.prepare_for_export()


def _about_zero(image_N1HW: Tensor) -> Tensor:
    """Take off each image's mean."""
    return image_N1HW - image_N1HW.mean(dim=(2, 3), keepdim=True)


def _neighbourhood_mean(image_N1HW: Tensor) -> Tensor:
    """Return the mean over a quarter of the side about each pixel: by columns, then by rows, which
    costs a fraction of a square window.
    """
    width = image_N1HW.shape[-1] // 4 | 1
    for window in ((width, 1), (1, width)):
        image_N1HW = functional.avg_pool2d(
            image_N1HW,
            window,
            stride=1,
            padding=(window[0] // 2, window[1] // 2),
            count_include_pad=False,
        )
    return image_N1HW
