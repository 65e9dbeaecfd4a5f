"""Measure a GPU: runs by batch and precision, then whole answers against what limits them.

    python -m bench.gpu --data FILE.dcm                    # needs a GPU and onnxruntime-gpu
    python -m bench.gpu --data FILE.dcm --workers 1,4,8    # how many processes serve

Writes GPU.md and results/gpu.json.  The graph can't answer faster than its best batch, nor can the
cores decode faster than all of them at once: the lower of both is the ceiling.

Shape suffixes: N images, H and W input rows and columns.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from app.cpu import usable_cores
from bench.changes import current_bundle, four_view_store
from bench.decode_ceiling import decode_ceiling, read
from bench.figures import Figures
from bench.gpu_page import gpu_page
from bench.phases import closed_phase
from bench.processes import ROOT, DidNotStart, clean_environment
from bench.servers import Running, our_server, running
from bench.uploads import Upload
from cxr.bundle import Bundle
from cxr.errors import BundleError, GraphError
from cxr.graph import OnnxGraph, Precision, Runtime

HERE = Path(__file__).parent
BATCHES = (1, 2, 4, 8, 16, 32, 64)
LANES = 2
"""Runs at once, as the service has them on a GPU: one fills its batch while the other runs."""
WAYS: dict[str, dict[str, Precision]] = {
    "fp32": {"fp32": "exact", "tf32": "fast"},
    "fp16": {"fp16": "exact"},
}
"""What is measured of a graph file, by its precision: TF32 rounds the factors of an fp32 graph
while it runs."""
CONNECTIONS_OF_WORKER = 16
GENERATORS = 4
"""Processes that ask; one of them would not keep up with a GPU."""


def main() -> None:
    """Measure, and write the page; what was found so far is kept after each part."""
    options = read_arguments()
    found: dict[str, Any] = {
        "machine": describe_gpu(),
        "model": options.model,
        "models": {},
        "served": {},
    }
    options.out.joinpath("results").mkdir(parents=True, exist_ok=True)

    def keep(what: str, figures: object) -> None:
        print(f"{what}: {figures}", flush=True)
        (options.out / "results/gpu.json").write_text(
            json.dumps(found, indent=1) + "\n", encoding="utf-8"
        )
        (options.out / "GPU.md").write_text(gpu_page(found), encoding="utf-8")

    data = options.data.read_bytes()
    upload = Upload("dicom", "the file given by --data", data, "application/dicom")
    for model in sorted(folder.name for folder in options.store.iterdir() if folder.is_dir()):
        bundle = current_bundle(options.store, model)
        graphs = dict(sweep(bundle, read(data, bundle.manifest.input_size), options))
        found["models"][model] = {
            "version": bundle.manifest.version,
            "size": bundle.manifest.input_size,
            "graphs": graphs,
        }
        keep(model, graphs)
    bundle = current_bundle(options.store, options.model)
    found["decode_per_s"] = decode_ceiling(
        options.data, bundle.manifest.input_size, 4 * options.seconds
    )
    keep(f"decoded a second on {usable_cores()} cores", found["decode_per_s"])
    with tempfile.TemporaryDirectory() as folder:
        for workers in options.workers:
            found["served"][str(workers)] = served(options, upload, workers, Path(folder))
            keep(f"{workers} processes", found["served"][str(workers)])
        found["views"] = asyncio.run(four_views(options, bundle, upload, Path(folder)))
        keep("four views", found["views"])


def sweep(
    bundle: Bundle, image_HW: NDArray[np.uint8], options: argparse.Namespace
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measure each of a bundle's graphs: how far its answers lie from the CPU's, and images a
    second by batch."""
    golden_NHW = bundle.golden.image_NHW
    wanted_N = OnnxGraph(bundle.graph_path).run(golden_NHW).logit_N
    for entry in bundle.manifest.graphs:
        for name, precision in WAYS.get(entry.precision, {}).items():
            runtime = Runtime(
                device=options.device, precision=precision, run_slots=LANES, buckets=BATCHES
            )
            try:
                graph = OnnxGraph(bundle.path / entry.file, runtime, precision=name)
                found: dict[str, Any] = {
                    "off_by": float(np.abs(graph.run(golden_NHW).logit_N - wanted_N).max())
                }
                rates = {
                    str(count): rate(graph, np.stack([image_HW] * count), options.seconds)
                    for count in BATCHES
                }
            except (BundleError, GraphError) as error:
                yield name, {"error": str(error)}
                continue
            yield name, found | {"one_ms": 1000 / rates["1"]["one_lane_per_s"], "batches": rates}


def rate(graph: OnnxGraph, batch_NHW: NDArray[np.uint8], seconds: float) -> Figures:
    """Give images a second with one run at a time, and with as many as the service has."""
    graph.run(batch_NHW)
    return {
        "one_lane_per_s": _repeat(graph, batch_NHW, 1, seconds),
        "lanes_per_s": _repeat(graph, batch_NHW, LANES, seconds),
    }


def _repeat(
    graph: OnnxGraph, batch_NHW: NDArray[np.uint8], run_slots: int, seconds: float
) -> float:
    started = time.perf_counter()

    def run() -> int:
        images = 0
        while not images or time.perf_counter() < started + seconds:
            graph.run(batch_NHW)
            images += len(batch_NHW)
        return images

    with ThreadPoolExecutor(run_slots) as threads:
        images = sum(future.result() for future in [threads.submit(run) for _ in range(run_slots)])
    return images / (time.perf_counter() - started)


def served(
    options: argparse.Namespace, upload: Upload, workers: int, folder: Path
) -> dict[str, Any]:
    """Load the service from several processes; gives answers a second, p50 and p99 in ms, or the
    `error`."""
    many = {
        "decode_threads": str(2 * workers),
        "queue_capacity": str(2 * CONNECTIONS_OF_WORKER * workers),
    }
    server = our_server(
        options.store,
        folder / f"cache-{workers}",
        options.model,
        device=options.device,
        workers=str(workers),
        **many,
    )
    try:
        with running(server, upload) as service:
            return _load(service, options, workers)
    except (DidNotStart, subprocess.CalledProcessError) as error:
        return {"error": str(error)}


def _load(service: Running, options: argparse.Namespace, workers: int) -> dict[str, Any]:
    connections = max(1, CONNECTIONS_OF_WORKER * workers // GENERATORS)
    command = [
        sys.executable,
        "-m",
        "bench.openloop",
        f"{service.url}/predict",
        str(options.data),
        "--closed",
        str(connections),
        "--seconds",
    ]
    _together([*command, "2"])
    before_s = service.processes.cpu_s()
    answers = _together([*command, str(8 * options.seconds)])
    used_s = service.processes.cpu_s() - before_s
    counts = [answer["counts"] for answer in answers]
    good = sum(count.get("200", 0) for count in counts)
    return {
        "per_s": sum(answer["answered_per_second"] for answer in answers),
        "p50_ms": max((answer["good_ms"]["p50"] or 0.0) for answer in answers) or None,
        "p99_ms": max((answer["good_ms"]["p99"] or 0.0) for answer in answers) or None,
        "failed": sum(sum(count.values()) for count in counts) - good,
        "cpu_ms": 1000 * used_s / max(1, good),
        "ready_s": service.ready_s,
        "memory_mb": service.processes.resident_mb(),
    }


def _together(command: list[str]) -> list[dict[str, Any]]:
    """Run a command in several processes at once, and read what each prints; raises
    `CalledProcessError`."""
    environment = {**clean_environment(), "PYTHONPATH": str(ROOT)}

    def run(_: int) -> dict[str, Any]:
        said = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        printed: dict[str, Any] = json.loads(said.stdout)
        return printed

    with ThreadPoolExecutor(GENERATORS) as threads:
        return list(threads.map(run, range(GENERATORS)))


async def four_views(
    options: argparse.Namespace, bundle: Bundle, upload: Upload, folder: Path
) -> Figures:
    """Ask for one view and for four, one connection at a time; gives nothing where the service does
    not start."""
    store = four_view_store(bundle, folder)
    try:
        with running(
            our_server(store, folder / "cache-views", options.model, device=options.device), upload
        ) as service:
            plain = await closed_phase(service, service.upload(upload), 1, 3.0, prefix="plain_")
            return plain | await closed_phase(
                service, service.upload(upload, query="?tta=true"), 1, 3.0, prefix="tta_"
            )
    except DidNotStart as error:
        print(f"four views: {error}", file=sys.stderr)
        return {}


def describe_gpu() -> dict[str, str]:
    """State the card, its driver, the cores beside it and the versions."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    tool = shutil.which(query[0])
    return {
        "GPU": subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
        if tool
        else "none",
        "cores": str(usable_cores()),
        "versions": f"onnxruntime {ort.__version__}, Python {sys.version.split()[0]}, numpy "
        f"{np.__version__}",
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(
            ["python -m bench.gpu", *("PATH" if os.sep in word else word for word in sys.argv[1:])]
        ),
    }


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, default=ROOT / "model_store")
    parser.add_argument(
        "--device", choices=("gpu", "cpu"), default="gpu", help="cpu tries the same way without one"
    )
    parser.add_argument("--model", default="pneumothorax", help="what is served (pneumothorax)")
    parser.add_argument("--data", type=Path, required=True, help="a DICOM file")
    parser.add_argument(
        "--seconds",
        type=float,
        default=0.5,
        help="of each batch's measurement (0.5); of serving eight times",
    )
    parser.add_argument(
        "--workers", type=lambda text: [int(part) for part in text.split(",")], default=[1, 4, 8]
    )
    parser.add_argument(
        "--out", type=Path, help="folder for GPU.md and results/ (bench/; none with --device cpu)"
    )
    options = parser.parse_args()
    if options.out is None:
        if options.device == "cpu":
            parser.error("--device cpu needs --out: what it measures is no GPU's")
        options.out = HERE
    return options


if __name__ == "__main__":
    main()
