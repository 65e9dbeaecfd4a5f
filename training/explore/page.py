"""The data report: one HTML file that needs nothing else.

Shape suffixes: N images.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from markupsafe import Markup

from training.data import siim
from training.explore import plots
from training.explore.duplicates import NEAR
from training.explore.figures import Figures
from training.explore.gallery import (
    least_typical,
    mean_images,
    near_pairs_shown,
    samples_of_class,
)
from training.explore.survey_result import Survey, plain_numbers
from training.html.document import render, svg

_MAX_LINES = 50
_AGE_BINS = np.arange(0, 125, 5).tolist()
_UNITS = {
    "age": "years",
    "width over height": "",
    "pixels": "",
    "file size": "bytes",
    "mean grey": "0 to 255",
    "contrast": "0 to 255",
}
_LAYOUTS = {
    "siim": "SIIM-ACR tree",
    "class-folders": "class folders",
    "labels": "images with a table of labels",
    "nih": "NIH ChestX-ray14",
}

Drawings = list[tuple[str, Markup]]


def page(figures: Figures, survey: Survey, data_dir: Path) -> str:
    """Return the whole page for the figures of explore.json and their survey."""
    table = siim.find_table(data_dir)
    runs = siim.read_runs(table) if table else {}
    rare, common = sorted((figures["classes"]["n_positive"], figures["classes"]["n_negative"]))
    shortcuts = {name: item for name, item in figures["shortcuts"].items() if item}
    metadata = figures["metadata"]
    return render(
        "explore.html",
        title=f"{figures['data']['name']}: the data",
        figures=figures,
        layout=" and ".join(_LAYOUTS[name] for name in figures["data"]["layout"].split("+")),
        balance=common / max(1, rare),
        max_lines=_MAX_LINES,
        near_limit=NEAR,
        person_drawings=_person_drawings(figures, survey),
        share_tables=[
            (name, metadata[key])
            for name, key in (("Sex", "sex"), ("View", "view_position"))
            if set(metadata[key]) != {"not stated"}
        ],
        has_masks=bool(runs),
        positives=list(samples_of_class(survey, data_dir, 1, runs)),
        negatives=list(samples_of_class(survey, data_dir, 0, runs)),
        unusual_pictures=list(least_typical(survey, data_dir)),
        mean_drawings=_mean_drawings(survey),
        lesion_drawings=_lesion_drawings(survey),
        shortcuts=shortcuts,
        same_everywhere=[name for name, item in figures["shortcuts"].items() if not item],
        shortcut_drawings=_shortcut_drawings(survey, [name for name in shortcuts if name != "age"]),
        near_pairs=list(near_pairs_shown(survey, data_dir)),
        unreadable=[
            f"{item['path']}: {item['code']}: {item['detail']}"
            for item in figures["files"]["unreadable"]
        ],
    )


def _person_drawings(figures: Figures, survey: Survey) -> Drawings:
    drawings = []
    label_N, years_N = plain_numbers(survey)["age"]
    if len(years_N):
        ages = plots.class_histogram("ages", label_N, years_N, "years", bins=_AGE_BINS)
        drawings.append(("Age by class", svg(ages)))
    counts = _grouped_counts(figures["persons"]["persons_by_images"])
    bars = plots.count_bars("images-a-person", counts, "images", "persons")
    drawings.append(("Images of one person", svg(bars)))
    return drawings


def _grouped_counts(persons_by_images: Mapping[str, int]) -> dict[str, int]:
    """Put persons of ten and more images into one bar."""
    counts: dict[str, int] = {}
    for images, persons in persons_by_images.items():
        name = images if int(images) < 10 else "10+"
        counts[name] = counts.get(name, 0) + persons
    return counts


def _mean_drawings(survey: Survey) -> Drawings:
    negative_HW, positive_HW = mean_images(survey)
    return [
        ("mean negative", svg(plots.mean_image("mean-negative", negative_HW))),
        ("mean positive", svg(plots.mean_image("mean-positive", positive_HW))),
        ("positive minus negative", svg(plots.difference_image(positive_HW - negative_HW))),
    ]


def _lesion_drawings(survey: Survey) -> Drawings:
    """Draw area and location of the lesions; nothing if there are none."""
    lesions = survey.lesions
    if lesions is None or not lesions.share_by_image:
        return []
    areas = plots.lesion_areas(np.array(list(lesions.share_by_image.values())))
    places = plots.lesion_places(lesions.frequency_hw, mean_images(survey)[1])
    return [("Area", svg(areas)), ("Place", svg(places))]


def _shortcut_drawings(survey: Survey, names: list[str]) -> Drawings:
    numbers = plain_numbers(survey)
    return [
        (
            name.capitalize(),
            svg(plots.class_histogram(f"by-class-{name}", *numbers[name], _UNITS[name])),
        )
        for name in names
    ]
