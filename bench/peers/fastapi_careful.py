"""FastAPI with a `def` route as a careful user writes it: pydicom, a JPEG decoded at a fraction of
its size, Starlette's own thread pool.
"""

import uvicorn
from fastapi import FastAPI, UploadFile

from bench.peers.own_reading import read_carefully
from bench.peers.reading import answer, open_session, port, run

session = open_session()
app = FastAPI()


@app.post("/predict")
def predict(file: UploadFile) -> dict[str, float]:
    return answer(run(session, read_carefully(file.file.read())))


@app.get("/livez")
async def livez() -> dict[str, str]:
    return {}


if __name__ == "__main__":
    uvicorn.run(app, port=port(), access_log=False, log_level="warning")
