"""The servers under test: ours with its engines, and the peers."""

import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.openloop import Target, make_request, multipart_request
from bench.processes import ROOT, Processes, clean_environment, started
from bench.uploads import Upload
from cxr.bundle import Bundle


@dataclass(frozen=True)
class Server:
    """How one server is started and asked."""

    name: str
    title: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    port_variable: str = "BENCH_PORT"
    path: str = "/predict"
    health_path: str = "/livez"
    is_ours: bool = False
    takes_form: bool = True


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    server: Server
    url: str
    processes: Processes
    ready_s: float

    def upload(self, upload: Upload, *, deadline_s: float | None = None, query: str = "") -> Target:
        """Build a request; a deadline goes with it as a header, which is understood by us and by
        Ray Serve."""
        headers = {} if deadline_s is None else {"x-request-timeout-seconds": str(deadline_s)}
        url = f"{self.url}{self.server.path}{query}"
        if self.server.takes_form:
            return multipart_request(url, upload.data, headers)
        return make_request(
            "POST", url, upload.data, {"Content-Type": upload.media_type, **headers}
        )

    def health(self) -> Target:
        """Build the request that asks whether the server lives."""
        return make_request("GET", f"{self.url}{self.server.health_path}")


@contextmanager
def running(server: Server, upload: Upload) -> Iterator[Running]:
    """Run a server until the block ends; ready when it has answered the upload.

    Ours says itself when it is ready; of a peer, the first good answer is waited for.
    Raises `DidNotStart`.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    probe = f"{url}/readyz" if server.is_ours else f"{url}{server.path}"
    is_form = not server.is_ours and server.takes_form
    body = None if server.is_ours else (form(upload.data) if is_form else upload.data)
    media_type = 'multipart/form-data; boundary="bench"' if is_form else upload.media_type

    def answers() -> bool:
        return _is_answered(urllib.request.Request(probe, body, {"Content-Type": media_type}))

    environment = {**server.environment, server.port_variable: str(port)}
    with started(list(server.command), environment, answers) as (processes, ready_s):
        yield Running(server, url, processes, ready_s)


def form(data: bytes) -> bytes:
    """Write a file as a form's only part."""
    head = b'--bench\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    return head + data + b"\r\n--bench--\r\n"


def _is_answered(request: urllib.request.Request) -> bool:
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    """Give a port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def our_server(store: Path, cache: Path, model: str, **settings: str) -> Server:
    """Describe the service, with the model that answers and some other settings."""
    named = {
        "STORE": store,
        "CACHE_DIR": cache,
        "DRAIN_SECONDS": 0,
        "DEFAULT_MODEL": model,
        **{name.upper(): value for name, value in settings.items()},
    }
    ways = [settings.get("engine", "onnxruntime"), settings.get("precision", "exact")]
    if "workers" in settings:
        ways.append(f"{settings['workers']} worker processes")
    return Server(
        name="ours" if not settings else f"ours-{'-'.join(settings.values())}",
        title=f"**cxr-serve** ({', '.join(ways)})",
        command=(sys.executable, "-m", "app"),
        environment={f"CXR_{name}": str(value) for name, value in named.items()},
        port_variable="CXR_PORT",
        is_ours=True,
    )


def all_servers(bundle: Bundle, store: Path, cache: Path, peers_python: Path) -> list[Server]:
    """List ours first, then the peers; torch is looked for where training has it."""
    quiet = {
        **graph_environment(bundle),
        "BENTOML_DO_NOT_TRACK": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }

    def peer(name: str, title: str, python: Path = peers_python, **ways: str | bool) -> Server:
        return Server(name, title, (str(python), "-m", f"bench.peers.{name}"), quiet, **ways)  # type: ignore[arg-type]

    model = bundle.manifest.model
    return [
        our_server(store, cache, model),
        our_server(store, cache, model, engine="openvino", precision="fast"),
        our_server(store, cache, model, workers="2"),
        peer("fastapi_onnx", "FastAPI `def` + ONNX Runtime, our reading"),
        peer("fastapi_careful", "FastAPI as a careful user writes it", Path(sys.executable)),
        peer("fastapi_plain", "FastAPI as most people write it", Path(sys.executable)),
        peer("litserve_onnx", "LitServe", health_path="/health"),
        peer("bentoml_onnx", "BentoML"),
        peer("ray_onnx", "Ray Serve", health_path="/-/healthz"),
        peer("mosec_onnx", "mosec", path="/inference", health_path="/", takes_form=False),
        peer("fastapi_torch", "FastAPI + torch eager", Path(sys.executable)),
    ]


def graph_environment(bundle: Bundle) -> dict[str, str]:
    """Say to a peer, or to the bare loop, which graph to open and what it reads."""
    return {
        "BENCH_GRAPH": str(bundle.graph_path.resolve()),
        "BENCH_SIZE": str(bundle.manifest.input_size),
    }


def peer_versions(python: Path) -> dict[str, str]:
    """Ask the peers' environment what it holds."""
    names = (
        "litserve",
        "bentoml",
        "ray",
        "mosec",
        "fastapi",
        "uvicorn",
        "onnxruntime",
        "numpy",
        "pillow",
    )
    script = (
        f"from importlib.metadata import version\nfor name in {names}: print(name, version(name))"
    )
    command = [str(python), "-c", script]
    try:
        said = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env=clean_environment(), check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return {}
    return dict(line.split() for line in said.stdout.splitlines())
