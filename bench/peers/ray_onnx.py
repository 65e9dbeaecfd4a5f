"""Ray Serve: a replica that decodes and runs in two threads, a short queue before it, and 429
beyond that."""

import asyncio
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import ray
from fastapi import FastAPI, UploadFile
from ray import serve
from ray.serve.config import BackpressureConfig

from bench.peers.reading import CONCURRENT_RUNS, MAX_WAITING, answer, open_session, port, read, run

ONGOING = 8
app = FastAPI()


@serve.deployment(
    max_ongoing_requests=ONGOING,
    max_queued_requests=MAX_WAITING - ONGOING,
    backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
    ray_actor_options={"num_cpus": 1},
)
@serve.ingress(app)
class Reader:
    def __init__(self) -> None:
        self.session = open_session()
        self.threads = ThreadPoolExecutor(CONCURRENT_RUNS)

    @app.post("/predict")
    async def predict(self, file: UploadFile) -> dict[str, float]:
        data = await file.read()
        return await asyncio.get_running_loop().run_in_executor(self.threads, self.read, data)

    def read(self, data: bytes) -> dict[str, float]:
        return answer(run(self.session, read(data)))


if __name__ == "__main__":
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    environment = {name: os.environ[name] for name in ("PYTHONPATH", "BENCH_GRAPH", "BENCH_SIZE")}
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": environment},
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port()})
    serve.run(Reader.bind())
    stopped.wait()
    ray.shutdown()
