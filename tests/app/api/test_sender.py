"""Who counts as one sender, and how a decoding process is shared among senders."""

import asyncio
import hashlib
from pathlib import Path

import httpx
import pytest
from pydicom.uid import JPEG2000Lossless

from app.api.sender import KEY_NAME, sender_of
from tests.app.serving import serving
from tests.factories import chest, make_dicom

KEYS = ",".join(f"{key}:{hashlib.sha256(key.encode()).hexdigest()}" for key in ("crowd", "single"))


def sender_at(address: str, key_name: str | None = None) -> str:
    key = {} if key_name is None else {KEY_NAME: key_name}
    return sender_of({"type": "http", "client": (address, 1234), **key})


def test_a_key_names_the_sender_from_wherever_it_sends() -> None:
    assert sender_at("192.0.2.1", "ward") == sender_at("192.0.2.2", "ward")
    assert sender_at("192.0.2.1", "ward") != sender_at("192.0.2.1", "lab")


def test_without_a_key_the_address_is_the_sender() -> None:
    assert sender_at("192.0.2.1") == "192.0.2.1"
    assert sender_of({"type": "http", "client": None}) == sender_of({"type": "http"})


def test_the_addresses_of_one_ipv6_site_are_one_sender() -> None:
    assert sender_at("2001:db8:1:2::1") == sender_at("2001:db8:1:2:ffff::9")
    assert sender_at("2001:db8:1:2::1") != sender_at("2001:db8:1:3::1")


def test_ipv4_addresses_written_as_ipv6_stay_apart() -> None:
    assert sender_at("::ffff:192.0.2.1") == sender_at("192.0.2.1")
    assert sender_at("::ffff:192.0.2.1") != sender_at("::ffff:192.0.2.2")


@pytest.mark.anyio
async def test_a_key_that_sends_many_slow_files_makes_another_wait_for_few_of_them(
    store: Path,
) -> None:
    slow = make_dicom(chest(1024, 1024), syntax=JPEG2000Lossless)
    async with serving(store, api_keys=KEYS, default_timeout_seconds=600) as served:

        async def post(key: str) -> httpx.Response:
            headers = {"authorization": f"Bearer {key}", "content-type": "application/dicom"}
            return await served.client.post("/predict", content=slow, headers=headers)

        crowd = [asyncio.create_task(post("crowd")) for _ in range(12)]
        await asyncio.wait(crowd, return_when=asyncio.FIRST_COMPLETED)
        before = sum(task.done() for task in crowd)
        single = await post("single")
        after = sum(task.done() for task in crowd)
        answers = [single, *await asyncio.gather(*crowd)]

    assert after - before <= 3
    assert {answer.status_code for answer in answers} == {200}
