"""A service with one made model, and a browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.bundles import made_metrics, write_made_bundle
from tests.e2e.visit import Visit, visiting
from tests.server import Server, running_server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
MAX_WAIT_MS = 60_000
POINT = {
    "sensitivity": 0.91,
    "sensitivity_ci95": [0.88, 0.94],
    "specificity": 0.885,
    "specificity_ci95": [0.86, 0.905],
}
BALANCED = made_metrics()["operating_points"]["balanced"] | POINT | {"criterion": "as made"}
METRICS = made_metrics(
    auroc=0.58,
    auroc_ci95=[0.5, 0.67],
    basis="made images.",
    operating_points={"balanced": BALANCED},
)


@pytest.fixture(scope="package")
def made_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose model `made` states how well it was measured."""
    store = tmp_path_factory.mktemp("page") / "store"
    write_made_bundle(store, "made", 1, metrics=METRICS)
    return store


@pytest.fixture(scope="package")
def server(made_store: Path) -> Iterator[Server]:
    with running_server(made_store, made_store.parent / "log", default_model="made") as running:
        yield running


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    expect.set_options(timeout=MAX_WAIT_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(server: Server, browser: Browser) -> Iterator[Visit]:
    """The page, loaded."""
    with visiting(browser, server.url) as opened:
        expect(opened.page.locator("#model")).to_have_value("made")
        yield opened
