import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEGBaseline8Bit
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

from gateway import instances
from gateway.header import find_data_set
from gateway.receive import CANNOT_UNDERSTAND, Incoming
from gateway.recovery import recover
from gateway.spool import Spool
from tests.gateway.certificates import make_certificates
from tests.gateway.conftest import CT, Reception, film, in_threads, start_reception
from tests.waiting import wait_until

MAX_WAKINGS_A_SECOND = 100
"""pynetdicom alone looks about a thousand times a second in each of the two threads."""
SUCCESS, OUT_OF_RESOURCES, NOT_SUPPORTED = 0x0000, 0xA700, 0x0122


@pytest.fixture
def small_node(tmp_path: Path) -> Iterator[Reception]:
    """A node with room for two associations of a peer, on a peer's own address."""
    peers = [{"ae_title": "SENDER"}, {"ae_title": "FAR", "addresses": ["192.0.2.0/24"]}]
    reception = start_reception(
        tmp_path / "small",
        node={"max_associations_per_peer": 2, "idle_seconds": 2, "max_instance_mb": 1},
        peers=peers,
    )
    yield reception
    reception.server.stop()
    reception.database.close()


def test_an_echo_is_answered(reception: Reception) -> None:
    association = reception.associate()
    assert association.send_c_echo().Status == SUCCESS
    association.release()


def test_an_instance_is_kept_byte_for_byte_before_it_is_acknowledged(reception: Reception) -> None:
    dataset = film(syntax=JPEGBaseline8Bit)
    association = reception.associate()
    status = association.send_c_store(dataset)
    (row,) = reception.rows()
    association.release()

    assert status.Status == SUCCESS
    kept = reception.spool.read(row["file"])
    sent = encode(dataset, is_implicit_vr=False, is_little_endian=True)
    assert kept[find_data_set(kept) :] == sent
    assert row["digest"] == sha256(kept[find_data_set(kept) :]).hexdigest()
    assert (row["state"], row["source_ae"], row["sop_uid"]) == (
        "received",
        "SENDER",
        dataset.SOPInstanceUID,
    )


def test_an_instance_that_comes_three_times_is_acknowledged_thrice_and_kept_once(
    reception: Reception,
) -> None:
    association = reception.associate()
    statuses = [association.send_c_store(film(1)).Status for _ in range(3)]
    association.release()
    assert statuses == [SUCCESS] * 3
    assert len(reception.rows()) == len(list(reception.spool.folder.iterdir())) == 1
    assert reception.metrics.received.labels("SENDER", "duplicate")._value.get() == 2


def test_the_same_instance_from_four_senders_at_once_is_kept_once(reception: Reception) -> None:
    def send() -> None:
        association = reception.associate()
        assert association.send_c_store(film(2)).Status == SUCCESS
        association.release()

    in_threads(*[send] * 4)
    assert len(reception.rows()) == len(list(reception.spool.folder.iterdir())) == 1


def test_other_bytes_under_a_known_uid_are_noted_and_the_first_are_kept(
    reception: Reception,
) -> None:
    association = reception.associate()
    first, second = film(3), film(3, PatientID="ANOTHER")
    assert [association.send_c_store(dataset).Status for dataset in (first, second, second)] == [
        SUCCESS
    ] * 3
    association.release()
    (row,) = reception.rows()
    assert (
        sha256(encode(first, is_implicit_vr=False, is_little_endian=True) or b"").hexdigest()
        == row["digest"]
    )
    assert [conflict["source_ae"] for conflict in reception.rows("conflicts")] == ["SENDER"]
    assert reception.metrics.received.labels("SENDER", "conflict")._value.get() == 2


def test_another_sop_class_is_refused_by_its_own_code(reception: Reception) -> None:
    association = reception.associate()
    dataset = film(4, SOPClassUID=CT, Modality="CT")
    assert association.send_c_store(dataset).Status == NOT_SUPPORTED
    assert association.send_c_store(film(5)).Status == SUCCESS
    association.release()


def test_a_full_disk_refuses_so_that_the_sender_tries_again(tmp_path: Path) -> None:
    reception = start_reception(tmp_path / "node", node={"min_free_gb": 10**6})
    association = reception.associate()
    assert association.send_c_store(film(6)).Status == OUT_OF_RESOURCES
    association.release()
    assert reception.metrics.refused.labels("disk")._value.get() == 1
    assert list(reception.spool.folder.iterdir()) == []
    reception.server.stop()
    reception.database.close()


def test_a_full_queue_refuses_so_that_the_sender_tries_again(tmp_path: Path) -> None:
    reception = start_reception(tmp_path / "node", node={"max_waiting": 1})
    association = reception.associate()
    assert association.send_c_store(film(7)).Status == SUCCESS
    wait_until(lambda: reception.receiver._backpressure.reason_to_refuse() == "queue")
    assert association.send_c_store(film(8)).Status == OUT_OF_RESOURCES
    association.release()
    reception.server.stop()
    reception.database.close()


@pytest.mark.parametrize(
    ("caller", "called"), [("STRANGER", "CXRGATE"), ("SENDER", "OTHER"), ("FAR", "CXRGATE")]
)
def test_who_is_not_on_the_list_gets_no_association(
    small_node: Reception, caller: str, called: str
) -> None:
    association = small_node.associate(caller, called)
    assert association.is_rejected


@pytest.mark.parametrize(
    ("caller", "called", "reason"),
    [
        ("SENDER", "SECRET-NODE", "called"),
        ("SECRET-PEER", "CXRGATE", "caller"),
        ("FAR", "CXRGATE", "address"),
    ],
)
def test_a_rejected_association_is_counted_and_logged_by_its_reason(
    small_node: Reception,
    caplog: pytest.LogCaptureFixture,
    caller: str,
    called: str,
    reason: str,
) -> None:
    assert small_node.associate(caller, called).is_rejected
    assert small_node.metrics.associations_refused.labels(reason)._value.get() == 1
    said = [one.getMessage() for one in caplog.records if one.name == "gateway.dimse"]
    assert said == [f"an association was rejected: {reason}"]


def test_a_caller_that_a_rule_names_keeps_its_name_if_any_peer_may_send(tmp_path: Path) -> None:
    rules = [{"name": "room", "calling_ae": ["ROOM7"], "silent": True}]
    node = start_reception(tmp_path / "node", node={"accept_any_peer": True}, rules=rules)
    for number, caller in ((12, "ROOM7"), (13, "STRANGER")):
        association = node.associate(caller)
        assert association.send_c_store(film(number)).Status == SUCCESS
        association.release()
    assert [row["source_ae"] for row in node.rows()] == ["ROOM7", "other"]
    node.server.stop()
    node.database.close()


@pytest.mark.parametrize(
    ("reason", "rows"), [("no_rule", "received"), ("corrupt_image", "skipped")]
)
def test_an_image_that_no_rule_took_is_looked_at_again_if_it_comes_again(
    reception: Reception, reason: str, rows: str
) -> None:
    association = reception.associate()
    assert association.send_c_store(film(14)).Status == SUCCESS
    (row,) = reception.rows()
    reception.database.write(
        "test", lambda connection: instances.skip(connection, row["id"], reason)
    )
    reception.database.write(
        "test", lambda connection: connection.execute("UPDATE instances SET file = NULL")
    )
    assert association.send_c_store(film(14)).Status == SUCCESS
    association.release()
    assert [one["state"] for one in reception.rows()] == [rows]


def test_meta_elements_at_the_head_of_a_data_set_do_not_cost_the_image(
    reception: Reception,
) -> None:
    meta = Dataset()
    meta.add_new(0x00020010, "UI", "1.2.840.10008.1.2.1")
    dataset = film(15)
    encoded = [
        encode(one, is_implicit_vr=False, is_little_endian=True) or b"" for one in (meta, dataset)
    ]
    syntax = dataset.file_meta.TransferSyntaxUID
    reception.receiver.admit(
        Incoming(dataset.SOPClassUID, dataset.SOPInstanceUID, syntax, b"".join(encoded), "SENDER")
    )
    recover(reception.database, reception.spool, ())
    assert [row["state"] for row in reception.rows()] == ["received"]


def test_a_store_request_without_a_data_set_is_answered_by_a_code(reception: Reception) -> None:
    association = reception.associate()
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = film(16).SOPClassUID
    request.AffectedSOPInstanceUID = "1.2.3.16.1.1"
    request.Priority = 2
    context = next(
        one.context_id
        for one in association.accepted_contexts
        if one.abstract_syntax == request.AffectedSOPClassUID
    )
    assert context is not None
    association.dimse.send_msg(request, context)
    _, answer = association.dimse.get_msg(block=True)
    assert isinstance(answer, C_STORE)
    assert answer.Status == CANNOT_UNDERSTAND
    assert association.send_c_store(film(16)).Status == SUCCESS
    association.release()


def test_one_peer_gets_its_share_of_associations_and_no_more(small_node: Reception) -> None:
    held = [small_node.associate() for _ in range(2)]
    assert all(association.is_established for association in held)
    assert small_node.associate().is_rejected
    for association in held:
        association.release()
    wait_until(lambda: small_node.metrics.associations._value.get() == 0)
    again = small_node.associate()
    assert again.is_established
    again.release()


def test_an_association_without_a_word_is_closed(small_node: Reception) -> None:
    association = small_node.associate()
    wait_until(lambda: not association.is_established)


def test_a_peer_that_stops_in_the_middle_of_a_pdu_is_closed(small_node: Reception) -> None:
    with socket.create_connection(("127.0.0.1", small_node.server.port)) as stalled:
        stalled.sendall(b"\x01\x00\x00\x00\x10\x00" + bytes(100))
        stalled.settimeout(30)
        assert stalled.recv(1) == b""


def test_a_message_over_the_limit_ends_its_association_and_nobody_elses(tmp_path: Path) -> None:
    node = start_reception(tmp_path / "node", node={"max_instance_mb": 1})
    other = node.associate()
    association = node.associate()
    association.send_c_store(film(9, PixelData=bytes(2 * 1024 * 1024), Rows=1024, Columns=2048))
    wait_until(lambda: not association.is_established)
    assert other.send_c_echo().Status == SUCCESS
    other.release()
    assert node.rows() == []
    assert node.metrics.refused.labels("too_large")._value.get() == 1
    node.server.stop()
    node.database.close()


def test_the_threads_of_a_silent_association_sleep(reception: Reception) -> None:
    silent = reception.associate()
    (served,) = reception.server.associations
    threads = [served.native_id, served.dul.native_id]
    busy = reception.associate()
    before = sum(map(_count_wakings, threads))
    started = time.monotonic()
    for _ in range(100):
        assert busy.send_c_echo().Status == SUCCESS
    wakings = sum(map(_count_wakings, threads)) - before
    assert wakings < MAX_WAKINGS_A_SECOND * (time.monotonic() - started) + 10
    assert silent.send_c_store(film(10)).Status == SUCCESS
    silent.release()
    busy.release()
    wait_until(lambda: not served.is_alive())


def _count_wakings(thread: int | None) -> int:
    status = Path(f"/proc/self/task/{thread}/status").read_text()
    return int(status.partition("\nnonvoluntary")[0].rpartition(":")[2])


def test_a_pdu_that_announces_more_than_the_limit_is_not_waited_for(
    small_node: Reception,
) -> None:
    with socket.create_connection(("127.0.0.1", small_node.server.port)) as greedy:
        greedy.sendall(b"\x01\x00\xff\xff\xff\xff")
        greedy.settimeout(30)
        assert greedy.recv(100) == bytes.fromhex("07000000000400000200")  # A-ABORT


def test_files_that_no_row_names_are_removed_at_the_start(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    known, orphan = spool.create((b"a",)), spool.create((b"b",))
    assert spool.delete_unknown({known}) == 1
    assert [path.name for path in tmp_path.iterdir()] == [known] != [orphan]


def test_tls_lets_in_only_who_shows_a_certificate_and_waits_for_nobody(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    tls = {
        "certificate": tmp_path / "node.pem",
        "key": tmp_path / "node.key",
        "peers_ca": tmp_path / "ca.pem",
    }
    reception = start_reception(tmp_path / "node", node={"tls": tls})
    stalled = socket.create_connection(("127.0.0.1", reception.server.port))  # says nothing at all

    place = f"127.0.0.1:{reception.server.port}"
    # By TLS 1.2 the refusal is part of the handshake; by 1.3 s_client may leave before it arrives.
    command = ["openssl", "s_client", "-tls1_2", "-connect", place, "-CAfile", f"{tmp_path}/ca.pem"]
    refused = subprocess.run(command, input=b"x", capture_output=True, timeout=60, check=False)
    assert refused.returncode != 0
    assert b"handshake failure" in refused.stderr

    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    context.load_cert_chain(tmp_path / "peer.pem", tmp_path / "peer.key")
    association = reception.associate(tls_args=(context, "127.0.0.1"))
    assert association.send_c_store(film(11)).Status == SUCCESS
    association.release()
    stalled.close()
    reception.server.stop()
    reception.database.close()
    assert len(reception.spool.read(reception_file(tmp_path))) > 4096


def reception_file(folder: Path) -> str:
    (path,) = (folder / "node/spool").iterdir()
    return path.name
