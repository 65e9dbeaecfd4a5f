"""A visit to one of the service's pages in a real browser, and files to give to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from playwright.sync_api import Browser, ConsoleMessage, FilePayload, Locator, Page, Request, expect

from tests.factories import chest, make_dicom, make_png


@dataclass
class Visit:
    """A page that was opened, and what the browser had to say about it."""

    page: Page
    url: str
    faults: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    expected: list[str] = field(
        default_factory=lambda: ["Failed to load resource: the server responded"]
    )

    def note_request(self, request: Request) -> None:
        self.requests.append(request)

    def note_complaint(self, message: ConsoleMessage) -> None:
        """Keep warnings and errors, but for Chromium's own lines about an answer that is no
        success."""
        if message.type in ("error", "warning") and not message.text.startswith(
            tuple(self.expected)
        ):
            self.faults.append(message.text)

    def cut_off(self, addresses: str) -> None:
        """Let no request to such addresses through. Chromium's line about it may come at any time,
        and is no fault."""
        self.expected.append("Failed to load resource: net::ERR_FAILED")
        self.page.route(addresses, lambda route: route.abort())

    def give(self, *files: FilePayload) -> None:
        """Choose files, and wait until each was read."""
        self.page.set_input_files("#files", files)
        expect(self.page.locator(".entry")).to_have_count(len(files))
        expect(self.page.locator(".entry-outcome.open")).to_have_count(0)

    def questions(self) -> list[dict[str, list[str]]]:
        """The queries that were asked of `/predict`, in order."""
        addresses = (urlsplit(request.url) for request in self.requests)
        return [parse_qs(address.query) for address in addresses if address.path == "/predict"]

    @property
    def report(self) -> Locator:
        return self.page.locator("#report")


@contextmanager
def visiting(browser: Browser, url: str, **context: Any) -> Iterator[Visit]:
    """Open the page; afterwards nobody may have complained, and no other host been asked."""
    page = browser.new_page(viewport={"width": 1440, "height": 900}, **context)
    opened = Visit(page, url)
    page.on("console", opened.note_complaint)
    page.on("pageerror", lambda error: opened.faults.append(str(error)))
    page.on("request", opened.note_request)
    page.on(
        "filechooser", lambda _: None
    )  # from the start on, the browser asks us and not a person
    page.goto(url)
    yield opened
    page.close()
    assert opened.faults == []
    asked = {
        request.url for request in opened.requests if not request.url.startswith(("blob:", "data:"))
    }
    assert [address for address in asked if not address.startswith(f"{url}/")] == []


def dicom_file(name: str = "chest.dcm", **header: Any) -> FilePayload:
    return {"name": name, "mimeType": "", "buffer": make_dicom(chest(), **header)}


def png_file(name: str = "chest.png", *, grey: int | None = None) -> FilePayload:
    pixels = chest() if grey is None else np.full((128, 128), grey, np.uint8)
    return {"name": name, "mimeType": "image/png", "buffer": make_png(pixels)}


def bad_file() -> FilePayload:
    return {
        "name": "letter.pdf",
        "mimeType": "application/pdf",
        "buffer": b"%PDF-1.7 no radiograph",
    }
