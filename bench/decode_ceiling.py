"""How many uploads the cores can decode in a second, a process each."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.cpu import usable_cores
from cxr.decode import DecodeLimits, decode
from cxr.preprocess import PreprocessSpec, preprocess


def decode_ceiling(file: Path, size: int, seconds: float) -> float:
    """Decode and preprocess on all cores at once; gives images a second."""
    cores = usable_cores()
    spawning = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    with ProcessPoolExecutor(cores, spawning) as pool:
        list(pool.map(_decode_for, [file] * cores, [size] * cores, [0.2] * cores))
        return sum(pool.map(_decode_for, [file] * cores, [size] * cores, [seconds] * cores))


def read(data: bytes, size: int) -> NDArray[np.uint8]:
    """Make `image_HW`, uint8 [size, size], from an upload."""
    return preprocess(decode(data, limits=DecodeLimits(), size=size), PreprocessSpec(size=size))


def _decode_for(file: Path, size: int, seconds: float) -> float:
    data = file.read_bytes()
    images = 0
    started = time.perf_counter()
    while time.perf_counter() < started + seconds:
        read(data, size)
        images += 1
    return images / (time.perf_counter() - started)
