"""The web page in a real browser, before the real service."""

import csv
import io
import json
import re

import numpy as np
import pydicom
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from app.api.problems import CODES
from cxr.decode import DecodeLimits, decode
from cxr.heatmap import COLORS_256_3, FULL_EVIDENCE
from cxr.warning_codes import WarningCode
from tests.e2e.visit import Visit, bad_file, dicom_file, png_file
from tests.factories import chest, make_jpeg
from tests.server import ROOT

READ_GREYS = """image => {
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const { data, width, height } = context.getImageData(0, 0, canvas.width, canvas.height);
    const row = (y) => Array.from({ length: width }, (_, x) => data[4 * (y * width + x)]);
    return Array.from({ length: height }, (_, y) => row(y));
}"""


def is_shown(image: Locator) -> bool:
    """Whether a picture was decoded and has a size on the screen."""
    box = image.bounding_box()
    return (
        bool(image.evaluate("image => image.naturalWidth > 0"))
        and box is not None
        and min(box["width"], box["height"]) > 100
    )


def test_a_dicom_file_gives_its_finding_its_facts_and_the_heat_map(visit: Visit) -> None:
    visit.give(dicom_file())

    expect(visit.report).to_contain_text("Probability of brightness")
    expect(visit.report.get_by_role("meter")).to_have_attribute(
        "aria-valuetext", "13.4 %, threshold 50.0 %"
    )
    expect(visit.report).to_contain_text(
        "Below the threshold: labelled dark. This does not rule out brightness."
    )
    expect(visit.report.get_by_role("row", name="Age")).to_contain_text("41 yearsfile: PatientAge")
    expect(visit.report.get_by_role("row", name="Sex")).to_contain_text("female")
    expect(visit.report.get_by_role("row", name="View")).to_contain_text("PA")
    assert is_shown(visit.page.locator("#overlay"))
    expect(visit.page.locator("#fade")).to_be_enabled()


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"WindowCenter": "100", "WindowWidth": "60"},
    ],
)
def test_a_dicom_file_is_shown_as_the_service_reads_it(
    visit: Visit, header: dict[str, str]
) -> None:
    file = dicom_file(**header)
    visit.give(file)

    expect(visit.page.locator("#plain")).to_be_visible()
    assert is_shown(visit.page.locator("#plain"))
    shown_HW = np.array(visit.page.locator("#plain").evaluate(READ_GREYS), np.uint8)
    read_HW = decode(file["buffer"], limits=DecodeLimits(), size=None, scope="refuse").pixels_HW
    np.testing.assert_array_equal(shown_HW, read_HW)


def test_a_file_that_the_service_can_not_draw_keeps_its_heat_map(visit: Visit) -> None:
    visit.cut_off("**/preview")
    visit.give(dicom_file())

    assert is_shown(visit.page.locator("#overlay"))
    expect(visit.page.locator("#plain")).to_be_hidden()
    expect(visit.page.locator("#picture-note")).to_contain_text(
        "without the heat map is not available"
    )


def test_a_dicom_file_gets_its_answer_for_the_archive(visit: Visit) -> None:
    visit.page.get_by_text("How to read").click()
    visit.page.get_by_label("Operating point").select_option("screen")
    visit.give(dicom_file("a.dcm", StudyInstanceUID="1.2.3.4", SeriesInstanceUID="1.2.3.5"))
    with visit.page.expect_download() as report:
        visit.page.get_by_role("button", name="Structured report").click()
    with visit.page.expect_download() as picture:
        visit.page.get_by_role("button", name="Image with heat map").click()

    assert (report.value.suggested_filename, picture.value.suggested_filename) == (
        "a-sr.dcm",
        "a-sc.dcm",
    )
    stated = pydicom.dcmread(report.value.path())
    assert (stated.Modality, stated.StudyInstanceUID) == ("SR", "1.2.3.4")
    assert b"operating_point=screen" in report.value.path().read_bytes()
    assert pydicom.dcmread(picture.value.path()).pixel_array.ndim == 3


def test_a_file_that_has_no_study_gets_no_object_and_is_told_why(visit: Visit) -> None:
    visit.give(dicom_file(StudyInstanceUID=None))
    visit.page.get_by_role("button", name="Structured report").click()

    expect(visit.report).to_contain_text("does not name the study, series and instance")


def test_a_picture_that_is_no_dicom_is_offered_for_no_archive(visit: Visit) -> None:
    visit.give(png_file())

    expect(visit.report).not_to_contain_text("For the archive")


def test_a_stated_prevalence_moves_the_answer_and_is_said(visit: Visit) -> None:
    visit.page.get_by_text("How to read").click()
    expect(visit.page.locator("#prevalence-note")).to_contain_text("If empty: 33.3 % with bright")
    visit.page.get_by_label("Prevalence").fill("7")
    expect(visit.page.locator("#point-note")).to_contain_text("Positive at 13.1 % or more.")
    visit.give(png_file())

    (asked,) = visit.questions()
    assert asked["prevalence"] == ["0.07"]
    expect(visit.report).to_contain_text(
        "for a prevalence of 7 %, instead of 33.3 % in the training images"
    )
    expect(visit.report.get_by_role("meter")).to_have_attribute(
        "aria-valuetext", "2.3 %, threshold 13.1 %"
    )


def test_the_right_button_drags_window_and_level(visit: Visit) -> None:
    visit.give(dicom_file())
    expect(visit.page.locator("#plain")).to_be_visible()
    box = visit.page.locator("#viewport").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    visit.page.mouse.move(x, y)
    visit.page.mouse.down(button="right")
    visit.page.mouse.move(x - 100, y + 40, steps=100)
    visit.page.mouse.up(button="right")

    expect(visit.page.locator("#corner-window")).to_have_text("W 206 L 148")


def test_the_room_is_dark_until_the_reader_asks_for_light(visit: Visit) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    assert visit.page.evaluate(ground) == "rgb(11, 14, 17)"
    visit.page.get_by_role("button", name="Light theme").click()
    visit.page.reload()

    expect(visit.page.get_by_role("button", name="Dark theme")).to_be_visible()
    assert visit.page.evaluate(ground) == "rgb(243, 245, 247)"
    expect(visit.page.locator("#viewport")).to_have_css("background-color", "rgb(0, 0, 0)")


def test_a_png_is_shown_as_it_is_with_the_heat_map_faded_over_it(visit: Visit) -> None:
    visit.give(png_file())

    plain, overlay = visit.page.locator("#plain"), visit.page.locator("#overlay")
    assert is_shown(plain)
    assert is_shown(overlay)
    assert plain.bounding_box() == overlay.bounding_box()
    visit.page.locator("#fade").fill("25")
    expect(overlay).to_have_css("opacity", "0.25")
    expect(visit.page.locator("#picture-note")).to_contain_text("It does not outline disease")


def test_the_report_states_how_the_operating_point_was_measured(visit: Visit) -> None:
    visit.give(png_file())

    expect(visit.report).to_contain_text(
        "The model found 91 of 100 images with bright (sensitivity, 95 % interval 88 to 94)."
    )
    expect(visit.report).to_contain_text(
        "The model cleared 89 of 100 images without it (specificity, 95 % interval 86 to 91)."
    )
    expect(visit.report).to_contain_text(
        "may be little better than chance (AUROC 0.58, 95 % interval 0.50 to 0.67)"
    )
    card = visit.report.get_by_role("link", name="Model card")
    with visit.page.expect_popup() as popup:
        card.click()
    expect(popup.value.get_by_role("heading", name="made")).to_be_visible()


def test_what_a_file_does_not_state_is_said_to_be_missing_and_may_be_supplied(visit: Visit) -> None:
    visit.give(png_file())
    expect(visit.report.get_by_role("row", name="Age")).to_contain_text("not stated")
    expect(visit.report.locator(".warnings li")).to_contain_text(
        ["Age not stated", "View not stated"]
    )

    visit.page.get_by_text("How to read").click()
    visit.page.get_by_label("Age, years").fill("64")
    visit.page.locator("#view").select_option("AP")
    visit.report.get_by_role("button", name="Read again with these options").click()

    expect(visit.report.get_by_role("row", name="Age")).to_contain_text("64 yearsas you stated")
    expect(visit.report.locator(".warnings")).to_have_count(0)


def test_the_chosen_operating_point_and_views_are_asked_for(visit: Visit) -> None:
    visit.page.get_by_text("How to read").click()
    visit.page.get_by_label("Operating point").select_option("screen")
    visit.page.get_by_label("Average several views").check()
    visit.give(png_file())

    (asked,) = visit.questions()
    assert asked == {
        "model": ["made"],
        "operating_point": ["screen"],
        "tta": ["true"],
        "heatmap": ["true"],
    }
    expect(visit.report.get_by_role("meter")).to_have_attribute(
        "aria-valuetext", "13.4 %, threshold 20.0 %"
    )
    expect(visit.report).to_contain_text("Mean of 2 views")
    expect(visit.report).to_contain_text(
        "All are on one side of the threshold, so the label is stable."
    )


def test_views_that_disagree_about_the_label_are_said_to(visit: Visit) -> None:
    def widen(route: Route) -> None:
        answer = route.fetch().json()
        route.fulfill(json={**answer, "tta": {"views": 2, "spread": 0.5}})

    visit.page.route("**/predict?**", widen)
    visit.give(png_file())

    expect(visit.report).to_contain_text(
        "differ by 50.0 points. That may cross the threshold: the label may depend on the view."
    )


def test_a_list_that_is_passed_through_asks_for_no_pictures_on_the_way(visit: Visit) -> None:
    visit.give(*(dicom_file(f"{number}.dcm") for number in range(6)))
    visit.page.locator(".entry").first.focus()
    for _ in range(5):
        visit.page.keyboard.press("ArrowDown")
    expect(visit.page.locator("#plain")).to_be_visible()

    drawn = [request for request in visit.requests if request.url.endswith("/preview")]
    assert len(drawn) == 2, "the first file and the last one"


def test_the_api_page_works_without_another_host(visit: Visit) -> None:
    visit.page.goto(f"{visit.url}/docs")

    expect(visit.page.get_by_role("button", name="Authorize")).to_be_visible()
    visit.page.get_by_text("Show one radiograph").click()
    expect(visit.page.get_by_text("A grey PNG of 8 bits")).to_be_visible()


def test_a_file_that_is_no_radiograph_gets_a_problem_and_what_to_do(visit: Visit) -> None:
    visit.give(bad_file())

    expect(visit.report).to_contain_text("The file's format is not supported")
    expect(visit.report).to_contain_text("neither DICOM")
    expect(visit.report).to_contain_text("Export the image as DICOM, PNG or JPEG.")
    expect(visit.report).to_contain_text("unsupported_format · request ")
    expect(visit.page.locator("#viewport")).to_contain_text("No image of this file")


def test_several_files_are_listed_in_order_and_fail_alone(visit: Visit) -> None:
    visit.give(
        png_file("bright.png", grey=230),
        bad_file(),
        dicom_file(),
        {**png_file("c.jpg"), "buffer": make_jpeg(chest())},
    )

    names = visit.page.locator(".entry-name").evaluate_all("names => names.map(name => name.title)")
    assert names == ["bright.png", "letter.pdf", "chest.dcm", "c.jpg"]
    expect(visit.page.locator(".entry-outcome")).to_contain_text(
        ["bright, 98.2 %", "not supported", "dark, 13.4 %", "dark, 13.4 %"]
    )
    expect(visit.page.locator("#list-count")).to_have_text("4 files")
    expect(visit.report.locator(".file-name")).to_have_text("bright.png")


def test_results_are_saved_as_json_and_csv(visit: Visit) -> None:
    visit.give(png_file("=a,b.png", grey=230), bad_file())

    answer = json.loads(saved(visit.page, "JSON"))
    assert [result["filename"] for result in answer["results"]] == ["=a,b.png", "letter.pdf"]
    assert answer["results"][0]["prediction"]["label"] == "bright"
    assert answer["results"][1]["problem"]["code"] == "unsupported_format"

    rows = list(csv.DictReader(io.StringIO(saved(visit.page, "CSV"))))
    assert rows[0]["filename"] == "'=a,b.png", "a spreadsheet must not take a name for a formula"
    assert float(rows[0]["probability"]) == answer["results"][0]["prediction"]["probability"]
    assert (rows[1]["label"], rows[1]["problem"]) == ("", "unsupported_format")


def saved(page: Page, button: str) -> str:
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    return download.value.path().read_text()


@pytest.mark.parametrize("name", ["PNG", "DICOM"])
def test_the_sample_is_one_click_away(visit: Visit, name: str) -> None:
    visit.page.get_by_role("button", name=name).click()

    expect(visit.report).to_contain_text("Probability of brightness")
    expect(visit.page.locator(".entry-name")).to_have_attribute(
        "title", f"sample.{'dcm' if name == 'DICOM' else 'png'}"
    )


def test_files_can_be_dropped_anywhere(visit: Visit) -> None:
    transfer = visit.page.evaluate_handle(
        "bytes => { const all = new DataTransfer(); all.items.add(new File([new "
        "Uint8Array(bytes)], 'a.png')); return all; }",
        list(png_file()["buffer"]),
    )
    visit.page.dispatch_event("#report", "dragover", {"dataTransfer": transfer})
    expect(visit.page.get_by_text("Drop to read")).to_be_visible()
    visit.page.dispatch_event("#report", "drop", {"dataTransfer": transfer})

    expect(visit.page.get_by_text("Drop to read")).to_be_hidden()
    expect(visit.report).to_contain_text("Probability of brightness")


def test_everything_can_be_done_from_the_keyboard(visit: Visit) -> None:
    page = visit.page
    page.get_by_role("button", name="Choose files").focus()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([png_file("a.png", grey=230), png_file("b.png")])
    expect(page.locator(".entry-outcome.open")).to_have_count(0)

    page.locator(".entry").first.focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator(".entry[aria-current=true]")).to_contain_text("b.png")
    expect(visit.report.locator(".file-name")).to_have_text("b.png")

    page.keyboard.press("Tab")
    expect(page.locator("#viewport")).to_be_focused()
    page.keyboard.press("+")
    expect(page.locator("#corner-window")).to_have_text("125 %")
    page.keyboard.press("i")
    expect(page.get_by_role("button", name="Invert")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("h")
    expect(page.locator("#overlay")).to_have_css("opacity", "0")
    page.keyboard.press("0")
    expect(page.locator("#corner-window")).to_have_text("")


def test_window_and_level_are_a_line_through_the_grey_values(visit: Visit) -> None:
    visit.give(png_file())
    visit.page.locator("#width").fill("128")
    visit.page.locator("#level").fill("64")

    line = visit.page.locator("#window feFuncG")
    expect(line).to_have_attribute("slope", "2")
    expect(line).to_have_attribute("intercept", "0")
    expect(visit.page.locator("#corner-window")).to_have_text("W 128 L 64")


def test_what_became_of_a_file_is_said_to_who_listens(visit: Visit) -> None:
    visit.give(png_file("a.png", grey=230))

    expect(visit.page.get_by_role("status")).to_have_text(
        re.compile(r"^a\.png: bright, 98\.2 %, \d+ warnings\.$")
    )


@pytest.mark.parametrize("width", [320, 390, 768, 2560])
def test_no_width_of_screen_scrolls_sideways(visit: Visit, width: int) -> None:
    visit.page.set_viewport_size({"width": width, "height": 844})
    visit.give(
        dicom_file("1.2.276.0.7230010.3.1.4.8323329.10016.1517875220.992175.dcm"), bad_file()
    )
    visit.page.get_by_text("How to read").click()

    assert visit.page.evaluate("document.documentElement.scrollWidth") == width
    overflowing = (
        "parts => parts.filter(part => part.scrollWidth > part.clientWidth).map(part "
        "=> part.id || part.className)"
    )
    assert (
        visit.page.locator(".desk, .report, #report-body, .tools").evaluate_all(overflowing) == []
    )


def test_not_for_diagnosis_is_always_in_sight(visit: Visit) -> None:
    visit.page.set_viewport_size({"width": 390, "height": 844})
    visit.give(png_file())
    visit.page.get_by_text("Model card").scroll_into_view_if_needed()

    expect(visit.page.get_by_text("Research use. Not for diagnosis.")).to_be_in_viewport(ratio=1)


def test_the_name_of_a_file_is_text_and_is_never_sent(visit: Visit) -> None:
    name = "<img src=x onerror=alert(1)>.png"
    visit.give(png_file(name))

    expect(visit.report.locator(".file-name")).to_have_text(name)
    (sent,) = [request for request in visit.requests if request.method == "POST"]
    assert "onerror" not in f"{sent.url} {sent.all_headers()}"
    assert sent.post_data_buffer is None or b"onerror" not in sent.post_data_buffer


def test_a_busy_service_is_asked_again_when_it_says(visit: Visit) -> None:
    refusals = iter([{"code": "overloaded", "title": "Too much is waiting", "detail": "Later."}])

    def refuse_once(route: Route) -> None:
        problem = next(refusals, None)
        if problem is None:
            route.continue_()
        else:
            route.fulfill(
                status=503,
                json=problem,
                headers={"retry-after": "1"},
                content_type="application/problem+json",
            )

    visit.page.route("**/predict?**", refuse_once)
    visit.give(png_file())

    assert len(visit.questions()) == 2
    expect(visit.report).to_contain_text("Probability of brightness")


def test_a_service_that_does_not_answer_is_said_not_to(visit: Visit) -> None:
    visit.cut_off("**/predict?**")
    visit.give(png_file())

    expect(visit.report).to_contain_text("The service did not answer")


def test_clear_forgets_every_file(visit: Visit) -> None:
    visit.give(png_file())
    visit.page.get_by_role("button", name="Clear").click()

    expect(visit.page.locator(".entry")).to_have_count(0)
    expect(visit.page.locator("#radiograph")).to_be_hidden()
    expect(visit.page.get_by_text("Drop a chest radiograph")).to_be_visible()


def test_the_legend_has_the_colours_of_the_heat_map(visit: Visit) -> None:
    visit.give(png_file())

    expect(visit.page.locator("#legend")).to_have_text(f"evidence 0{FULL_EVIDENCE:g} or more")
    drawn = visit.page.locator(".ramp").evaluate("ramp => getComputedStyle(ramp).backgroundImage")
    stops = [np.rint(COLORS_256_3[place]).astype(int) for place in (0, 255)]
    first, last = (f"rgb({red}, {green}, {blue})" for red, green, blue in stops)
    assert first in drawn
    assert drawn.endswith(f"{last})")


def test_the_page_has_words_for_every_warning_and_every_problem() -> None:
    words = (ROOT / "app/page/words.js").read_text()

    unspoken = [code for code in (*WarningCode, *CODES) if f'\n  {code}: "' not in words]

    # a page asks for nothing that it was not told of, and takes every answer
    assert set(unspoken) == {
        "not_found", "method_not_allowed", "not_acceptable", "not_implemented",
    }  # fmt: skip
