"""How long `/livez` and ordinary uploads take while something heavy or hostile comes in.

    python bench/liveness.py [SECONDS [LOAD]]   (a free port of the loopback, the store of this
                                                checkout)

For each load it starts the service, measures a while without the load and a while with
it, and prints the percentiles of both.  Figures of one run compare; those of two machines do not.
"""

import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from pydicom.uid import JPEG2000Lossless

from tests.factories import chest, make_dicom, make_jpeg
from tests.phi_marked_files import deflate_bomb, png_bomb
from tests.server import running_server

STORE = Path(__file__).parent.parent / "model_store"


def post_forever(url: str, files: list[bytes]) -> None:
    """Send files one after the other until killed."""
    with httpx.Client(timeout=60) as client:
        while True:
            for data in files:
                client.post(f"{url}/predict", content=data)


def send_endless_bodies(url: str, _: list[bytes]) -> None:
    """Send a multipart body that never ends, again and again, as fast as it is taken."""
    place = urlsplit(url)
    piece = b"10000\r\n" + os.urandom(65536) + b"\r\n"
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=b\r\n"
    head += b"transfer-encoding: chunked\r\n\r\n"
    begin = b'--b\r\ncontent-disposition: form-data; name="file"\r\n\r\n'
    while True:
        try:
            with socket.create_connection((place.hostname or "", place.port or 0)) as connection:
                connection.sendall(head + f"{len(begin):x}\r\n".encode() + begin + b"\r\n")
                while True:
                    connection.sendall(piece)
        except OSError:
            continue


def open_slowly(url: str, _: list[bytes]) -> None:
    """Keep a hundred connections open that send a byte of a header each second."""
    place = urlsplit(url)
    connections: list[socket.socket] = []
    while True:
        connections += [
            socket.create_connection((place.hostname or "", place.port or 0))
            for _ in range(100 - len(connections))
        ]
        time.sleep(1)
        connections = [connection for connection in connections if is_taken(connection)]


def is_taken(connection: socket.socket) -> bool:
    """Send one byte more; tell whether the service still takes any."""
    try:
        connection.sendall(b"x")
    except OSError:
        connection.close()
        return False
    return True


def deep_files() -> list[bytes]:
    """Five-megapixel JPEG 2000 files, as large detectors write them."""
    pixels = chest(2500, 2000).astype(np.uint16) * 16
    noise = np.random.default_rng(0).integers(0, 32, pixels.shape, dtype=np.uint16)
    return [make_dicom(pixels + noise, syntax=JPEG2000Lossless, BitsStored=12, HighBit=11)]


Load = tuple[Callable[[str, list[bytes]], None], list[bytes], int]


def loads() -> Iterator[tuple[str, Load]]:
    """Name each load: what is sent, and by how many senders."""
    yield "5-megapixel JPEG 2000", (post_forever, deep_files(), 2)
    yield "endless multipart bodies", (send_endless_bodies, [], 1)
    yield "deflate bomb, PNG bomb", (post_forever, [deflate_bomb(200 * 2**20), png_bomb()], 1)
    yield "100 slow connections", (open_slowly, [], 1)


def measure(url: str, upload: bytes, seconds: float) -> dict[str, list[float]]:
    """Ask `/livez` twenty times a second, and send an ordinary upload now and then; gives
    milliseconds."""
    took: dict[str, list[float]] = {"livez": [], "predict": []}
    end = time.monotonic() + seconds
    with httpx.Client(timeout=60) as client:
        while time.monotonic() < end:
            ask(took["livez"], lambda: client.get(f"{url}/livez"))
            if len(took["livez"]) % 5 == 0:
                ask(took["predict"], lambda: client.post(f"{url}/predict", content=upload))
            time.sleep(0.05)
    return took


def ask(times_ms: list[float], prediction_request: Callable[[], httpx.Response]) -> None:
    """Ask once, and note how long the answer took."""
    started = time.perf_counter()
    prediction_request().raise_for_status()
    times_ms.append(1000 * (time.perf_counter() - started))


def summary(took: dict[str, list[float]]) -> str:
    """Give median and 99th percentile of each."""
    return "   ".join(
        f"{name} p50 {np.percentile(times, 50):6.1f} p99 {np.percentile(times, 99):6.1f} ms (n "
        f"{len(times)})"
        for name, times in took.items()
    )


def main(seconds: float, wanted: str) -> None:
    """Measure under each load whose name begins as wanted."""
    upload = make_jpeg(chest(1024, 1024))
    for name, (send, files, senders) in loads():
        if not name.startswith(wanted):
            continue
        with (
            tempfile.TemporaryDirectory() as folder,
            running_server(STORE, Path(folder) / "log") as server,
        ):
            measure(server.url, upload, 2)
            print(f"{name:26} before  {summary(measure(server.url, upload, seconds))}")
            processes = [
                multiprocessing.Process(target=send, args=(server.url, files))
                for _ in range(senders)
            ]
            for process in processes:
                process.start()
            try:
                time.sleep(1)
                print(
                    f"{'':26} during  {summary(measure(server.url, upload, seconds))}", flush=True
                )
            finally:
                for process in processes:
                    process.kill()
                    process.join()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 20, sys.argv[2] if len(sys.argv) > 2 else "")
