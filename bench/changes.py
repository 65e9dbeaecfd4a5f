"""Requests that are lost while versions are swapped and while the service ends: there should be
none.

A lost request is one whose headers were received and that got no HTTP answer.  A sender sees a
broken connection, also where the service closed an idle one just as the next request was written,
so what is counted is an upper bound."""

import asyncio
import json
import shutil
import signal
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from bench.figures import Figures
from bench.openloop import Connections, Tally, Target
from bench.processes import MAX_STOP_S
from bench.servers import Running, our_server, running
from bench.uploads import Upload
from cxr.bundle import Bundle, read_bundle, write_bundle
from cxr.manifest import write_manifest

SENDERS = 4
MAX_SWAP_S = 20.0


def copy_version(
    bundle: Bundle, store: Path, model: str, version: int, *, tta_policy: str | None = None
) -> Path:
    """Put a bundle into a store under another number, and with another TTA policy if one is
    named."""
    manifest = bundle.manifest.model_copy(update={"model": model, "version": version})
    if tta_policy is not None:
        readings = {**manifest.readings, tta_policy: manifest.readings[manifest.tta_policy]}
        manifest = manifest.model_copy(update={"tta_policy": tta_policy, "readings": readings})
    with write_bundle(store, model, version) as draft:
        for file in bundle.path.iterdir():
            shutil.copyfile(file, draft / file.name)
        write_manifest(draft / "bundle.json", manifest)
    return store / model / str(version)


async def swaps(bundle: Bundle, folder: Path, upload: Upload, *, count: int) -> Figures:
    """Put new versions into the store under load, one after the other."""
    store, model = folder / "swaps", bundle.manifest.model
    first = bundle.manifest.version
    copy_version(bundle, store, model, first)
    server = our_server(store, folder / "cache", model, store_poll_seconds="0.1")
    with running(server, upload) as served:
        tally, stop = Tally(), asyncio.Event()
        senders = [
            asyncio.create_task(send(served.upload(upload), tally, stop)) for _ in range(SENDERS)
        ]
        done = 0
        for version in range(first + 1, first + 1 + count):
            copy_version(bundle, store, model, version)
            done += await _serves(served, model, version)
            shutil.rmtree(store / model / str(version - 1))
        stop.set()
        await asyncio.gather(*senders)
    return {
        "swaps": float(done),
        "swap_requests": float(sum(tally.counts().values())),
        "swap_lost": float(lost(tally)),
    }


async def _serves(served: Running, model: str, version: int) -> bool:
    """Wait until a version answers, and tell whether it came to that."""

    def current() -> int:
        with urllib.request.urlopen(f"{served.url}/models/{model}", timeout=10) as response:
            return max(
                int(entry["version"])
                for entry in json.load(response)["versions"]
                if entry["state"] == "current"
            )

    deadline = time.monotonic() + MAX_SWAP_S
    while time.monotonic() < deadline:
        with suppress(OSError):
            if await asyncio.to_thread(current) == version:
                return True
        await asyncio.sleep(0.05)
    return False


async def drains(bundle: Bundle, folder: Path, upload: Upload, *, count: int) -> Figures:
    """End the service under load by SIGTERM, again and again."""
    store = folder / "drains"
    copy_version(bundle, store, bundle.manifest.model, bundle.manifest.version)
    figures = {"drains": 0.0, "drain_requests": 0.0, "drain_lost": 0.0}
    for _ in range(count):
        with running(
            our_server(store, folder / "cache", bundle.manifest.model, drain_seconds="0.5"), upload
        ) as served:
            tally, stop = Tally(), asyncio.Event()
            senders = [
                asyncio.create_task(send(served.upload(upload), tally, stop))
                for _ in range(SENDERS)
            ]
            await asyncio.sleep(0.5)
            served.processes.main.send_signal(signal.SIGTERM)
            await asyncio.to_thread(served.processes.main.wait, 4 * MAX_STOP_S)
            stop.set()
            await asyncio.gather(*senders)
        figures["drains"] += 1
        figures["drain_requests"] += sum(tally.counts().values())
        figures["drain_lost"] += lost(tally)
    return figures


async def send(target: Target, tally: Tally, stop: asyncio.Event) -> None:
    """Send one upload after the other until told to stop, or until nobody listens any more."""
    pool = Connections(target)
    while not stop.is_set():
        started = time.perf_counter()
        try:
            status = await pool.ask(30.0)
        except OSError:
            return
        tally.add(status, time.perf_counter() - started)
        if status == 503:  # what is going down refuses faster than anybody should ask
            await asyncio.sleep(0.02)
    pool.close()


def lost(tally: Tally) -> int:
    """Count what was sent and never answered."""
    return len(tally.seconds.get(0, [])) + len(tally.seconds.get(408, []))


def four_view_store(bundle: Bundle, folder: Path) -> Path:
    """Make a store whose model has a test-time augmentation of four views."""
    copy_version(
        bundle,
        folder / "views",
        bundle.manifest.model,
        bundle.manifest.version,
        tta_policy="mirror-tilt",
    )
    return folder / "views"


def current_bundle(store: Path, model: str) -> Bundle:
    """Read the highest version of a model."""
    return read_bundle(max((store / model).glob("[0-9]*"), key=lambda path: int(path.name)))
