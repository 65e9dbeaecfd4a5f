"""mosec: a front in Rust that takes raw bodies, and a worker process for each run at once; beyond
its queue, 429."""

import sys
from typing import Any

import mosec

from bench.peers.reading import CONCURRENT_RUNS, MAX_WAITING, answer, open_session, port, read, run


class Reader(mosec.Worker):
    def __init__(self) -> None:
        super().__init__()
        self.session = open_session()

    def deserialize(self, data: bytes) -> bytes:
        return bytes(data)  # mosec gives a memoryview

    def forward(self, data: bytes) -> Any:
        return answer(run(self.session, read(data)))


if __name__ == "__main__":
    sys.argv += [
        "--address",
        "127.0.0.1",
        "--port",
        str(port()),
        "--capacity",
        str(MAX_WAITING),
        "--timeout",
        "30000",
    ]
    server = mosec.Server()
    server.append_worker(Reader, num=CONCURRENT_RUNS)
    server.run()
