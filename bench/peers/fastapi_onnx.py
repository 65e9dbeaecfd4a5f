"""FastAPI with a `def` route: decode and run in the thread pool, which has as many threads as there
are runs at once.

Starlette's own limit is 40 threads, which contend for the interpreter: two are faster.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI, UploadFile

from bench.peers.reading import CONCURRENT_RUNS, answer, open_session, port, read, run

session = open_session()


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    current_default_thread_limiter().total_tokens = CONCURRENT_RUNS
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
def predict(file: UploadFile) -> dict[str, float]:
    return answer(run(session, read(file.file.read())))


@app.get("/livez")
async def livez() -> dict[str, str]:
    return {}


if __name__ == "__main__":
    uvicorn.run(app, port=port(), access_log=False, log_level="warning")
