"""FastAPI with a `def` route as most people write it: `pixel_array`, a resize, Starlette's own
thread pool.
"""

import uvicorn
from fastapi import FastAPI, UploadFile

from bench.peers.own_reading import read_plainly
from bench.peers.reading import answer, open_session, port, run

session = open_session()
app = FastAPI()


@app.post("/predict")
def predict(file: UploadFile) -> dict[str, float]:
    return answer(run(session, read_plainly(file.file.read())))


@app.get("/livez")
async def livez() -> dict[str, str]:
    return {}


if __name__ == "__main__":
    uvicorn.run(app, port=port(), access_log=False, log_level="warning")
