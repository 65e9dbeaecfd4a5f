"""LitServe: a worker process for each run at once; no batches, for on a CPU they make nothing
faster."""

from typing import Any

import litserve
import numpy as np
from fastapi import Request
from numpy.typing import NDArray

from bench.peers.reading import CONCURRENT_RUNS, answer, open_session, port, read, run


class Reader(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002 -- LitServe's signature
        self.session = open_session()

    def decode_request(self, request: Request, **_: Any) -> NDArray[np.uint8]:
        form: Any = request  # LitServe looks at the annotation, and hands the form over
        return read(form["file"].file.read())

    def predict(self, image_NHW: NDArray[np.uint8], **_: Any) -> float:
        return run(self.session, image_NHW)

    def encode_response(self, logit: float, **_: Any) -> dict[str, float]:
        return answer(logit)


if __name__ == "__main__":
    server = litserve.LitServer(Reader(), accelerator="cpu", workers_per_device=CONCURRENT_RUNS)
    server.run(host="127.0.0.1", port=port(), generate_client_file=False, log_level="warning")
