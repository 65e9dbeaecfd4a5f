"""Measure the gateway beside a real service and a real Orthanc: `python -m tests.pacs.measure`.

Prints a table for docs/pacs.md. Names on the command line choose sections: latency receive echo
outage. The machine's load stands in the table, since all of this runs on the same cores.
"""

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEGBaseline8Bit
from pynetdicom import AE
from pynetdicom.association import Association

from gateway.associations import only_ask
from tests.gateway.conftest import in_threads
from tests.pacs.archive import Archive
from tests.pacs.films import Film, send, write_films
from tests.pacs.node import Gateway
from tests.pacs.reports import rows
from tests.pacs.service import RunningService
from tests.server import ROOT, free_port
from tests.waiting import wait_until

CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
VERIFICATION = "1.2.840.10008.1.1"
FILE_BYTES = 240_000
OUTAGE_S = float(os.environ.get("OUTAGE_S", "600"))
SOURCE = ROOT / os.environ.get("TEST_DATA", "../shared/data")


class Bench:
    """A service, an archive and gateways in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.service, self.archive = (
            RunningService(folder / "service"),
            Archive(folder / "orthanc"),
        )

    @contextmanager
    def gateway(self, name: str, *, service_url: str | None = None) -> Iterator[Gateway]:
        """A running gateway."""
        gateway = Gateway(
            self.folder / name,
            service_url or self.service.url,
            [{"name": "archive", "stow_url": self.archive.stow_url}],
            [{"name": "all", "destinations": ["archive"]}],
        )
        gateway.start()
        yield gateway
        gateway.stop()


def say(name: str, value: str) -> None:
    """Print a row of the table."""
    sys.stdout.write(f"| {name} | {value} | {os.getloadavg()[0]:.1f} |\n")
    sys.stdout.flush()


def associate(port: int, caller: str) -> Association:
    """Ask for an association that can send JPEG baseline captures, and echo."""
    entity = AE(caller)
    entity.add_requested_context(CAPTURE, JPEGBaseline8Bit)
    entity.add_requested_context(VERIFICATION)
    return only_ask(entity.associate("127.0.0.1", port, ae_title="CXRGATE", max_pdu=0))


def renamed(films: list[Film], run: int) -> Iterator[Dataset]:
    """The films' data sets, with UIDs of this run, for ever."""
    number = 0
    while True:
        dataset = dcmread(films[number % len(films)].path)
        number += 1
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(dataset, keyword, f"1.2.9.{run}.{number}.{len(keyword)}")
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        yield dataset


def measure_latency(bench: Bench, films: list[Film]) -> None:
    """From the last byte of a film to its report in the archive, at two rates."""
    for rate, count in ((10, 200), (1, 30)):
        with bench.gateway(f"latency{rate}") as gateway:
            association = associate(gateway.dicom_port, "SENDER1")
            data = renamed(films, rate)
            started = time.monotonic()
            for number in range(count):
                time.sleep(max(0.0, started + number / rate - time.monotonic()))
                assert association.send_c_store(next(data)).Status == 0
            sending_s = time.monotonic() - started
            association.release()
            confirmed = "cxr_gateway_confirmed_total"
            wait_until(lambda: gateway.metric(confirmed) == count, seconds=900)  # noqa: B023
        seconds = [
            row[0]
            for row in rows(
                gateway,
                "SELECT answer_events.at - answers.received_at FROM answers JOIN answer_events "
                "ON answer = answers.id WHERE state = 'sent'",
            )
        ]
        p50, p95, worst = np.percentile(seconds, [50, 95, 100])
        say(
            f"last byte to report in the archive, {count / sending_s:.1f} films/s, {count} films",
            f"p50 {p50:.2f} s, p95 {p95:.2f} s, worst {worst:.2f} s",
        )


def measure_receive(bench: Bench, films: list[Film]) -> None:
    """Durable receipt of files of 240 KB, in one and in eight associations, nothing scored."""
    folders = []
    for sender in range(9):
        folder = bench.folder / f"send{sender}"
        folder.mkdir()
        folders.append(folder)
        data = renamed(films, 100 + sender)
        for number in range(100):
            dataset = next(data)
            block = dataset.private_block(0x0011, "PADDING", create=True)
            buffer = BytesIO()
            dataset.save_as(buffer)
            block.add_new(1, "OB", bytes(max(0, FILE_BYTES - buffer.tell()) // 2 * 2))
            dataset.save_as(folder / f"{number}.dcm")
    with bench.gateway("receive", service_url=f"http://127.0.0.1:{free_port()}") as gateway:

        def run(sender: int) -> None:
            found = [Film(path, "-xy", "", "") for path in sorted(folders[sender].iterdir())]
            assert send(found, gateway.dicom_port, f"SENDER{max(1, sender)}")

        for name, senders in (("one association", [0]), ("eight associations", range(1, 9))):
            started = time.monotonic()
            in_threads(*(lambda sender=sender: run(sender) for sender in senders))
            rate = 100 * len(senders) / (time.monotonic() - started)
            say(
                f"durable receipt, 240 KB, {name} (storescu's start included)",
                f"{rate:.0f} files/s",
            )


def measure_echo(bench: Bench, films: list[Film]) -> None:
    """C-ECHO of one peer while another opens 50 associations and stalls in a message."""
    import socket

    with bench.gateway("echo") as gateway:
        quiet = _echo_ms(gateway, 200)
        stalled = socket.create_connection(("127.0.0.1", gateway.dicom_port))
        stalled.sendall(b"\x01\x00\x00\x00\xff\x00" + bytes(50))
        greedy: list[Association] = []
        in_threads(*[lambda: greedy.append(associate(gateway.dicom_port, "SENDER2"))] * 50)
        open_count = sum(association.is_established for association in greedy)
        for association in greedy:  # our own half should not take the cores either
            association.dul._run_loop_delay = 0.5
            if association.is_established:
                association._reactor_checkpoint.clear()
        busy = _echo_ms(gateway, 500)
        for association in greedy:
            with suppress(Exception):
                association.abort()
        stalled.close()
    say("C-ECHO, nobody else", f"p99 {np.percentile(quiet, 99):.0f} ms")
    say(
        f"C-ECHO beside a peer that asks for 50 associations ({open_count} accepted) and a "
        "stalled one",
        f"p99 {np.percentile(busy, 99):.0f} ms",
    )


def _echo_ms(gateway: Gateway, count: int) -> list[float]:
    association = associate(gateway.dicom_port, "SENDER1")
    times: list[float] = []
    for _ in range(count):
        started = time.monotonic()
        assert association.send_c_echo().Status == 0
        times.append(1000 * (time.monotonic() - started))
    association.release()
    return times


def measure_outage(bench: Bench, films: list[Film]) -> None:
    """How fast 300 waiting results are in the archive once it is back."""
    with bench.gateway("outage") as gateway:
        bench.archive.stop(signal.SIGKILL)
        before = threading.Event()
        started = time.monotonic()
        association = associate(gateway.dicom_port, "SENDER1")
        data = renamed(films, 500)
        for _ in range(300):
            assert association.send_c_store(next(data)).Status == 0
        association.release()
        wait_until(lambda: gateway.metric("cxr_gateway_scored_total") == 300, seconds=900)
        before.wait(max(0.0, OUTAGE_S - (time.monotonic() - started)))
        away_s = time.monotonic() - started
        bench.archive.start()
        back = time.monotonic()
        confirmed = "cxr_gateway_confirmed_total"
        wait_until(lambda: gateway.metric(confirmed) == 300, seconds=600)
    say(
        f"300 results after an archive was away for {away_s / 60:.0f} min",
        f"all confirmed {time.monotonic() - back:.0f} s after its return",
    )


SECTIONS: dict[str, Callable[[Bench, list[Film]], None]] = {
    "receive": measure_receive,
    "echo": measure_echo,
    "latency": measure_latency,
    "outage": measure_outage,
}


def main() -> None:
    """Measure the sections that are named, or all."""
    folder = Path(tempfile.mkdtemp(prefix="pacs"))
    bench = Bench(folder)
    films = [film for film in write_films(SOURCE, folder / "films", 50) if film.option == "-xy"]
    try:
        bench.archive.start()
        bench.service.start()
        sys.stdout.write("| what | measured | load |\n|---|---|---|\n")
        for name in sys.argv[1:] or SECTIONS:
            SECTIONS[name](bench, films)
    finally:
        bench.service.stop()
        bench.archive.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
