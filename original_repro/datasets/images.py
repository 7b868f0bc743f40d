"""What a network has to know of a data set of images."""

from typing import NamedTuple


class ImageFormat(NamedTuple):
    """Images (height, width, channels) of so many classes, with values in [0, 1].

    mean, deviation: those of the training images' values, over all of them (numbers) or by channel (a tuple each).
    """

    height: int
    width: int
    channels: int
    classes: int
    mean: float | tuple = 0.0
    deviation: float | tuple = 1.0

    @property
    def shape(self):
        """Of one image."""
        return self.height, self.width, self.channels
