"""Ask a cxr-serve service from Python, or from the shell by `cxr-serve predict`.

    from cxr_client import Client

    with Client("http://127.0.0.1:8000") as client:
        answer = client.predict(Path("radiograph.dcm"), model="pneumothorax")
        print(answer["probability"], answer["label"])

This package needs httpx and nothing of the service: no FastAPI, no model runtime.
"""

from cxr_client.answers import PredictionDict
from cxr_client.client import Client, ClientError, ServiceProblem, TimedOut, Unreachable

__all__ = [
    "Client",
    "ClientError",
    "PredictionDict",
    "ServiceProblem",
    "TimedOut",
    "Unreachable",
]
