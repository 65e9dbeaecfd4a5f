"""FastAPI with eager PyTorch, as most tutorials have it: an EfficientNet-B0 of the same shape with
random weights.

The weights make no difference to the time; one thread a run, as the other peers have it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import torch
import uvicorn
from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI, UploadFile

from bench.peers.reading import CONCURRENT_RUNS, answer, port, read
from training.model.network import ChestNet

torch.set_num_threads(1)
network = ChestNet.named("efficientnet-b0").eval()


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    current_default_thread_limiter().total_tokens = CONCURRENT_RUNS
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
def predict(file: UploadFile) -> dict[str, float]:
    image_NHW = torch.from_numpy(read(file.file.read()))
    with torch.inference_mode():
        logit_N, _, _ = network(image_NHW)
    return answer(float(logit_N[0]))


@app.get("/livez")
async def livez() -> dict[str, str]:
    return {}


if __name__ == "__main__":
    uvicorn.run(app, port=port(), access_log=False, log_level="warning")
