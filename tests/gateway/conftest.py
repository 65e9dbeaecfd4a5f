"""A gateway's parts on a folder of the test's own, and peers that talk to it over real sockets."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from gateway.associations import only_ask
from gateway.backpressure import Backpressure
from gateway.database import Database
from gateway.dimse_server import DimseServer
from gateway.metrics import GatewayMetrics
from gateway.presentation_contexts import RADIOGRAPHS, SYNTAXES
from gateway.receive import Receiver
from gateway.rules import fingerprint
from gateway.settings import GatewaySettings
from gateway.spool import Spool
from tests.bundles import write_made_bundle
from tests.factories import chest, make_dicom
from tests.gateway.hospital import Hospital
from tests.gateway.settings import make_settings
from tests.server import Server, running_server

VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"


@dataclass
class Reception:
    """A node that receives and does nothing else."""

    settings: GatewaySettings
    database: Database
    spool: Spool
    metrics: GatewayMetrics
    receiver: Receiver
    server: DimseServer

    def associate(
        self, caller: str = "SENDER", called: str = "CXRGATE", **options: Any
    ) -> Association:
        """Ask for an association with contexts for all radiographs, CT and C-ECHO."""
        entity = AE(caller)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 30
        syntaxes = (SYNTAXES[0], "1.2.840.10008.1.2.1")
        contexts = [
            build_context(uid, syntax) for uid in sorted(RADIOGRAPHS) for syntax in syntaxes
        ]
        contexts += [build_context(VERIFICATION), build_context(CT, ["1.2.840.10008.1.2.1"])]
        place = ("127.0.0.1", self.server.port)
        return only_ask(entity.associate(*place, contexts, called, **options))

    def rows(self, table: str = "instances") -> list[dict[str, Any]]:
        """All rows of a table."""
        with self.database.reading() as connection:
            return [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY id")]


def start_reception(folder: Path, **tables: Any) -> Reception:
    settings = make_settings(folder, **tables)
    folder.mkdir(exist_ok=True)
    database, spool, metrics = (
        Database(folder / "gateway.sqlite"),
        Spool(folder / "spool"),
        GatewayMetrics(),
    )
    backpressure = Backpressure(settings.node, spool, database)
    rules = fingerprint(settings.rules)
    receiver = Receiver(database, spool, backpressure, metrics, rules=rules)
    server = DimseServer(settings, receiver, metrics)
    server.start()
    return Reception(settings, database, spool, metrics, receiver, server)


@pytest.fixture
def reception(tmp_path: Path) -> Iterator[Reception]:
    """A node that receives."""
    reception = start_reception(tmp_path / "node")
    yield reception
    reception.server.stop()
    reception.database.close()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real service with a made model, which all tests of a process share."""
    folder = tmp_path_factory.mktemp("service")
    write_made_bundle(folder / "store", "bright", 1)
    with running_server(folder / "store", folder / "log", default_model="bright") as server:
        yield server


@pytest.fixture
def hospital(tmp_path: Path, service: Server) -> Iterator[Hospital]:
    """A gateway's folder beside the service; the test opens the rest."""
    hospital = Hospital(tmp_path / "node", service.url)
    with hospital.stack:
        yield hospital


def film(seed: int = 0, **tags: Any) -> Dataset:
    """A drawn chest with UIDs of its own."""
    uids = {"StudyInstanceUID": f"1.2.3.{seed}", "SeriesInstanceUID": f"1.2.3.{seed}.1"}
    sop_uid = f"1.2.3.{seed}.1.1"
    data = make_dicom(chest(64, 64, seed=seed), **{**uids, "SOPInstanceUID": sop_uid, **tags})
    dataset = dcmread(BytesIO(data))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    return dataset


def in_threads(*runs: Callable[[], None]) -> None:
    """Run functions at once, and fail if one fails."""
    faults: list[BaseException] = []

    def guarded(run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as exc:
            faults.append(exc)

    threads = [threading.Thread(target=guarded, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
