"""The service with a simulated device in its device process: `python -m bench.simulated_device`.

The device runs one batch at a time. A batch takes half a millisecond, and each image of it a tenth,
without a core: the thread sleeps. What is left to measure is everything around a fast device. The
answers are those of the first golden image, whatever was asked.

Shape suffixes: N images of a batch, H and W input rows and columns, M columns of metadata.
"""

import time
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from app.server.end_process import end_process
from app.server.log import configure_logging
from app.server.supervisor import Supervisor
from app.server.worker_slot import WorkerSlot, work
from app.settings import Settings
from cxr.bundle import Bundle
from cxr.graph import Runtime
from cxr.interpret import Outputs, no_map

RUN_S = 0.0005
IMAGE_S = 0.0001


class SimulatedGraph:
    """A graph on a device that sleeps."""

    precision = "fp32"

    def __init__(self, bundle: Bundle, runtime: Runtime, device: Lock) -> None:
        self.engine = runtime.name
        golden = bundle.golden
        self.num_facts = len(bundle.manifest.metadata)
        self._device = device
        self._logit_N = golden.logit_N[:1]
        self._cam_Nhw = golden.cam_Nhw[:1]
        self._novelty_N = golden.novelty_N[:1]

    def run(
        self,
        batch_NHW: NDArray[np.uint8],
        _metadata_NM: NDArray[np.float32] | None = None,
        *,
        with_map: bool = True,
    ) -> Outputs:
        """Answer a batch after its time."""
        count = len(batch_NHW)
        with self._device:
            time.sleep(RUN_S + IMAGE_S * count)
        cam_Nhw = np.repeat(self._cam_Nhw, count, axis=0) if with_map else no_map(count)
        return Outputs(np.repeat(self._logit_N, count), cam_Nhw, np.repeat(self._novelty_N, count))


class SimulatedDevice:
    """Opens graphs that share one device."""

    def __init__(self) -> None:
        self._is_busy = Lock()

    def open(self, bundle: Bundle, runtime: Runtime) -> SimulatedGraph:
        """Stand in for `cxr.graph.open_graph`."""
        return SimulatedGraph(bundle, runtime, self._is_busy)


def run_graphs(settings: Settings, worker_slot: WorkerSlot) -> None:
    """Be the device process."""
    worker_slot.take()
    from app.server.device_process import run_device_process  # noqa: PLC0415 -- see `take`

    end_process(run_device_process(settings, worker_slot, SimulatedDevice().open))


def main() -> int:
    """Serve until SIGTERM. Return the exit status."""
    settings = Settings.read()
    configure_logging(settings.log_level)
    return Supervisor(settings, work, run_graphs=run_graphs).run()


if __name__ == "__main__":
    end_process(main())
