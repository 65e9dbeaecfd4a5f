"""Load on a composed service: radiographs drawn on the spot, in three formats, some with test-time
augmentation.

make load                                   # ten users for a minute, against http://127.0.0.1:8000
make load LOAD="-u 50 -r 10 -t 2m"
"""

from io import BytesIO

from locust import HttpUser, constant, task
from PIL import Image

from cxr.phantom import draw_phantom


def draw_file(kind: str, seed: int) -> bytes:
    """A made chest as PNG or JPEG."""
    file = BytesIO()
    Image.fromarray(draw_phantom(1024, 1024, seed=seed)).save(file, kind)
    return file.getvalue()


PNG, JPEG = draw_file("PNG", 1), draw_file("JPEG", 2)


class Sender(HttpUser):
    """Sends one radiograph after the other, as fast as answers come."""

    wait_time = constant(0)

    @task(8)
    def send_jpeg(self) -> None:
        self.client.post(
            "/predict", data=JPEG, headers={"content-type": "image/jpeg"}, name="/predict jpeg"
        )

    @task(4)
    def send_png(self) -> None:
        self.client.post(
            "/predict", data=PNG, headers={"content-type": "image/png"}, name="/predict png"
        )

    @task(1)
    def ask_for_everything(self) -> None:
        self.client.post(
            "/predict?tta=true&heatmap=true",
            data=JPEG,
            headers={"content-type": "image/jpeg"},
            name="/predict tta heatmap",
        )
