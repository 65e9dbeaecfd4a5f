"""The page before a service that wants an API key."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.visit import Visit, png_file, visiting
from tests.server import Server, running_server

KEY = "a-key-for-this-test"


@pytest.fixture(scope="module")
def guarded(made_store: Path) -> Iterator[Server]:
    keys = f"reader:{hashlib.sha256(KEY.encode()).hexdigest()}"
    log = made_store.parent / "guarded-log"
    with running_server(made_store, log, default_model="made", api_keys=keys) as running:
        yield running


@pytest.fixture
def visit(guarded: Server, browser: Browser) -> Iterator[Visit]:
    with visiting(browser, guarded.url) as opened:
        yield opened


def give_key(visit: Visit, key: str) -> None:
    visit.page.get_by_label("API key").fill(key)
    visit.page.keyboard.press("Enter")


def test_the_page_asks_for_a_key_and_answers_with_it(visit: Visit) -> None:
    expect(visit.page.get_by_role("alert")).to_contain_text("Enter the API key")
    give_key(visit, KEY)
    expect(visit.page.locator("#model")).to_have_value("made")
    expect(visit.page.get_by_role("alert")).to_be_hidden()
    visit.give(png_file())

    expect(visit.report).to_contain_text("Probability of brightness")
    assert not any(KEY in request.url for request in visit.requests)


def test_a_wrong_key_is_asked_for_again(visit: Visit) -> None:
    give_key(visit, "wrong")
    expect(visit.page.get_by_role("alert")).to_contain_text("Enter the API key")
    give_key(visit, KEY)

    expect(visit.page.locator("#model")).to_have_value("made")


def test_the_card_opens_with_the_key(visit: Visit) -> None:
    give_key(visit, KEY)
    expect(visit.page.locator("#model")).to_have_value("made")
    visit.give(png_file())
    with visit.page.expect_popup() as popup:
        visit.report.get_by_role("link", name="Model card").click()

    expect(popup.value.get_by_role("heading", name="made")).to_be_visible()


def test_a_key_is_kept_in_its_tab_alone_and_can_be_forgotten(visit: Visit) -> None:
    give_key(visit, KEY)
    expect(visit.page.locator("#model")).to_have_value("made")
    visit.page.reload()
    expect(visit.page.locator("#model")).to_have_value("made")
    assert KEY not in str(visit.page.evaluate("Object.entries(localStorage)"))

    visit.page.get_by_role("button", name="Forget it").click()
    assert KEY not in str(visit.page.evaluate("Object.entries(sessionStorage)"))
    expect(visit.page.get_by_role("alert")).to_contain_text("Enter the API key")
