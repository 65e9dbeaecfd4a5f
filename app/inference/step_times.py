"""How long steps will take, learned from how long they took.

    LinearTime   a run of a graph, by its number of images
    RunEstimate  the runs of one upload's views, over all run slots
    DecodeTimes  decoding a file, by its length

All of it belongs to one event loop, and nothing here reads a clock.
"""

import math

_MEMORY = 0.95
"""Share of the past that each new observation leaves: about twenty of them count."""

_OUTLIER = 4.0
"""Times its estimate that one observation may count for: a single delay is no trend."""

_ANCHOR = 0.5
"""Weight, in squared images, of the line through the origin: it decides alone while all batches are
of one size."""


class LinearTime:
    """Seconds of a run, `t(n) = a * n + b`, by exponentially weighted least squares."""

    def __init__(self, seconds_per_image: float, seconds_per_run: float = 0.0) -> None:
        seconds = seconds_per_image + seconds_per_run
        self._weight, self._n, self._nn = 1.0, 1.0, 1.0
        self._t, self._nt = seconds, seconds
        self._line = self._fit()

    def observe(self, num_images: int, seconds: float) -> None:
        """Learn from one run."""
        seconds = min(seconds, _OUTLIER * self.seconds(num_images))
        self._weight = _MEMORY * self._weight + 1
        self._n = _MEMORY * self._n + num_images
        self._t = _MEMORY * self._t + seconds
        self._nn = _MEMORY * self._nn + num_images * num_images
        self._nt = _MEMORY * self._nt + num_images * seconds
        self._line = self._fit()

    @property
    def line(self) -> tuple[float, float]:
        """The seconds that each image adds, and those that every run takes, neither negative."""
        return self._line

    def _fit(self) -> tuple[float, float]:
        """Fit the line once for each run: it is read many times for each upload."""
        mean_n, mean_t = self._n / self._weight, self._t / self._weight
        spread = self._nn / self._weight - mean_n**2
        together = self._nt / self._weight - mean_n * mean_t
        slope = (together + _ANCHOR * mean_t / mean_n) / (spread + _ANCHOR)
        slope = min(max(slope, 0.0), mean_t / mean_n)
        return slope, mean_t - slope * mean_n

    def seconds(self, num_images: int) -> float:
        """Estimate one run."""
        slope, start = self.line
        return slope * num_images + start

    def seconds_of_many(self, num_images: int, max_batch: int) -> float:
        """Estimate the runs that so many images need, one after the other."""
        full, rest = divmod(num_images, max_batch)
        return full * self.seconds(max_batch) + (self.seconds(rest) if rest else 0.0)


class RunEstimate:
    """Seconds of the runs of one graph, whose batches fill several run slots."""

    def __init__(self, run_time: LinearTime, *, max_batch: int, num_run_slots: int) -> None:
        self._run_time = run_time
        self._max_batch = max_batch
        self._num_run_slots = num_run_slots

    def own_seconds(self, num_views: int) -> float:
        """Estimate the run of one upload's views if all run slots are free for them."""
        num_of_slot = math.ceil(num_views / self._num_run_slots)
        return self._run_time.seconds_of_many(num_of_slot, self._max_batch)

    def shared_seconds(self, num_views: int) -> float:
        """Estimate by how much one upload's views hold up those behind them, in full batches."""
        batch_s = self._run_time.seconds(self._max_batch)
        return num_views * batch_s / (self._max_batch * self._num_run_slots)


class DecodeTimes:
    """Seconds of decoding by a file's length, to the nearest power of two.

    The length is all that is known of a file before its body is read. Files of one length may
    be quick or slow to decode: the estimate is for their recent mixture.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._typical = 0.005

    def observe(self, num_bytes: int, seconds: float) -> None:
        """Learn from one file."""
        known = self.seconds(num_bytes)
        seconds = min(seconds, _OUTLIER * known)
        self._seconds[num_bytes.bit_length()] = _MEMORY * known + (1 - _MEMORY) * seconds
        self._typical = _MEMORY * self._typical + (1 - _MEMORY) * seconds

    def seconds(self, num_bytes: int) -> float:
        """Estimate one file; a length that is not known, or was never seen, counts as typical."""
        return self._seconds.get(num_bytes.bit_length(), self._typical)
