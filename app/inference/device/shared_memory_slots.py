"""Shared memory in slots: an image and its metadata go in, the graph's outputs come out.

    slot    image, uint8    metadata, float32    logit, novelty and map, float32

The memory has no name and no file: it is gone with the last process that holds it, however that
ends. Pages that nobody touched take no memory, so a slot has room for the largest input.

Shape suffixes: H and W input rows and columns, h and w map rows and columns, M columns of metadata,
N is 1.
"""

import fcntl
import mmap
import os
import sys
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cxr.interpret import Outputs

_IMAGE_BYTES = 2**20
_METADATA_BYTES = 2**12
_SLOT_BYTES = 2 * _IMAGE_BYTES
_OUTPUTS_AT = _IMAGE_BYTES + _METADATA_BYTES
_CAM_AT = _OUTPUTS_AT + 64
_MAX_SLOTS = 4096

_FLOAT_BYTES = 4


class SharedSlots:
    """Memory that one serving process and the device process share."""

    def __init__(self, file: int, num_slots: int) -> None:
        """Map the memory behind a file descriptor, which may be closed then."""
        self.num_slots = num_slots
        self._map = mmap.mmap(file, num_slots * _SLOT_BYTES)

    @classmethod
    def create(cls, num_slots: int) -> tuple[Self, int]:
        """Return new memory, and its file descriptor, which the caller closes.

        Nobody can shrink the memory: reading beyond its end would kill the other process.
        """
        assert sys.platform == "linux"
        num_slots = min(num_slots, _MAX_SLOTS)
        file = os.memfd_create("cxr-slots", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(file, num_slots * _SLOT_BYTES)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
        return cls(file, num_slots), file

    @classmethod
    def attach(cls, file: int, num_slots: int) -> Self:
        """Return the memory that another process made.

        Raises:
            ValueError: it is smaller than that process says, or can become so.
        """
        assert sys.platform == "linux"
        is_sealed = fcntl.fcntl(file, fcntl.F_GET_SEALS) & _SEALS == _SEALS
        is_whole = os.fstat(file).st_size == num_slots * _SLOT_BYTES
        if not (is_sealed and is_whole and 0 < num_slots <= _MAX_SLOTS):
            raise ValueError("the shared memory is not as it should be")
        return cls(file, num_slots)

    def image_HW(self, slot: int, side: int) -> NDArray[np.uint8]:
        """Return a slot's image, to read or to write."""
        start = slot * _SLOT_BYTES
        return np.frombuffer(self._map, np.uint8, side * side, start).reshape(side, side)

    def metadata_M(self, slot: int, num_columns: int) -> NDArray[np.float32]:
        """Return a slot's metadata features, to read or to write."""
        return np.frombuffer(self._map, np.float32, num_columns, slot * _SLOT_BYTES + _IMAGE_BYTES)

    def write_outputs(self, slot: int, outputs: Outputs) -> None:
        """Put one image's outputs into its slot, and no more than `fits` allows."""
        start = slot * _SLOT_BYTES
        cam_hw = outputs.cam_Nhw[0]
        scalars = np.frombuffer(self._map, np.float32, 2, start + _OUTPUTS_AT)
        scalars[0] = outputs.logit_N[0]
        scalars[1] = outputs.novelty_N[0]
        np.frombuffer(self._map, np.float32, cam_hw.size, start + _CAM_AT)[:] = cam_hw.ravel()

    def read_outputs(self, slot: int, cam_shape: tuple[int, int]) -> Outputs:
        """Return a copy of one image's outputs."""
        start = slot * _SLOT_BYTES
        rows, columns = cam_shape
        scalars = np.frombuffer(self._map, np.float32, 2, start + _OUTPUTS_AT)
        cam = np.frombuffer(self._map, np.float32, rows * columns, start + _CAM_AT)
        return Outputs(scalars[:1].copy(), cam.reshape(1, rows, columns).copy(), scalars[1:].copy())


def fits(side: int, num_columns: int, cam_shape: tuple[int, int]) -> bool:
    """Tell whether a slot has room for an image of a model, its metadata and its outputs."""
    cam_bytes = cam_shape[0] * cam_shape[1] * _FLOAT_BYTES
    return (
        side * side <= _IMAGE_BYTES
        and num_columns * _FLOAT_BYTES <= _METADATA_BYTES
        and cam_bytes <= _SLOT_BYTES - _CAM_AT
    )


_SEALS = (
    fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL if sys.platform == "linux" else 0
)
