"""BentoML: a worker process for each run at once, and a bound on what waits, answered 429 beyond
it."""

import os
import sys
from pathlib import Path

import bentoml

from bench.peers.reading import CONCURRENT_RUNS, MAX_WAITING, answer, open_session, port, read, run


@bentoml.service(
    workers=CONCURRENT_RUNS, threads=1, traffic={"timeout": 30, "max_concurrency": MAX_WAITING}
)
class Reader:
    def __init__(self) -> None:
        self.session = open_session()

    @bentoml.api(route="/predict")
    def predict(self, file: Path) -> dict[str, float]:
        return answer(run(self.session, read(file.read_bytes())))


if __name__ == "__main__":
    target = ("bench.peers.bentoml_onnx:Reader", "--host", "127.0.0.1", "--port", str(port()))
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", "serve", *target])
