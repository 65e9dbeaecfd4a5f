"""axe-core judges every page in its states: nothing serious may stand between it and a reader."""

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, FilePayload, Page, expect

from tests.e2e.visit import Visit, bad_file, dicom_file, png_file, visiting
from tests.server import Server

WIDTHS = {"phone": 390, "workstation": 1440}
STATES: dict[str, tuple[FilePayload, ...]] = {
    "empty": (),
    "with one result": (dicom_file(),),
    "with a problem": (bad_file(),),
    "with several files": (png_file("a.png", grey=230), bad_file(), dicom_file()),
}
SERIOUS = ("serious", "critical")


@pytest.fixture
def judged(server: Server, browser: Browser) -> Iterator[Visit]:
    """The page, without its policy on scripts, which would keep axe-core out too."""
    with visiting(browser, server.url, bypass_csp=True) as opened:
        expect(opened.page.locator("#model")).to_have_value("made")
        yield opened


def serious_faults(page: Page) -> list[str]:
    """What axe-core finds serious or critical, each with the first element that has it."""
    found = Axe().run(page).response["violations"]
    return [
        f"{fault['id']}: {fault['nodes'][0]['html']}"
        for fault in found
        if fault["impact"] in SERIOUS
    ]


@pytest.mark.parametrize("room", ["dark", "light"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("state", STATES)
def test_the_page_has_no_serious_fault(judged: Visit, state: str, width: int, room: str) -> None:
    judged.page.set_viewport_size({"width": width, "height": 844})
    if room == "light":
        judged.page.get_by_role("button", name="Light theme").click()
    judged.give(*STATES[state])
    judged.page.get_by_text("How to read").click()

    assert serious_faults(judged.page) == []


@pytest.mark.parametrize("address", ["models/made/card"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_that_the_service_writes_have_no_serious_fault(
    judged: Visit, address: str, scheme: str
) -> None:
    judged.page.emulate_media(color_scheme="light" if scheme == "light" else "dark")
    judged.page.goto(f"{judged.url}/{address}")

    assert serious_faults(judged.page) == []


def test_axe_core_finds_a_fault_that_is_there(judged: Visit) -> None:
    judged.page.evaluate(
        "document.querySelector('#model').parentElement.replaceWith(document.querySelector('#model'))"
    )

    assert any(fault.startswith("select-name") for fault in serious_faults(judged.page))
