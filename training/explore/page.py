"""The data report: one HTML file that needs nothing else.

Shape suffixes: N images.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from training.data import siim
from training.explore import plots
from training.explore.duplicates import NEAR
from training.explore.figures import Figures, Survey, plain_numbers
from training.explore.gallery import (
    Shown,
    least_typical,
    mean_images,
    near_pairs_shown,
    samples_of_class,
)
from training.html.document import html_page, table, table_row

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


def page(figures: Figures, survey: Survey, data_dir: Path) -> str:
    """Return the whole page for the figures of explore.json and their survey."""
    parts = (
        _header(figures),
        _tiles(figures),
        _remarks(figures["remarks"]),
        _balance(figures),
        _persons(figures, survey),
        _pictures(survey, data_dir),
        _lesions(figures, survey),
        _shortcuts(figures, survey),
        _duplicates(figures, survey, data_dir),
        _files(figures),
        _footer(figures),
    )
    return html_page(
        f"{figures['data']['name']}: the data", f"<style>{_CSS}</style>" + "".join(parts)
    )


def _header(figures: Figures) -> str:
    layout = {"siim": "SIIM-ACR tree", "class-folders": "class folders"}[figures["data"]["layout"]]
    return (
        f"<header><p class=kicker>Data report, "
        f"{layout}</p><h1>{escape(figures['data']['name'])}</h1>"
        "<p>What there is, who is in it, and what could fool a model that learns from "
        "it.</p></header>\n"
    )


def _tiles(figures: Figures) -> str:
    files, classes, persons, near = (
        figures["files"],
        figures["classes"],
        figures["persons"],
        figures["duplicates"]["near"],
    )
    rows = "" if files["table_rows"] is None else f"in {files['table_rows']:,} rows of the table"
    rare, common = sorted((classes["n_positive"], classes["n_negative"]))
    tiles = (
        ("Images", f"{files['files']:,}", rows or f"{files['bytes'] / 2**20:,.0f} MiB"),
        (
            "Positive",
            f"{classes['n_positive']:,}",
            f"{classes['positive_share']:.1%} of the images",
        ),
        ("Balance", f"1 : {common / max(1, rare):.2f}", "rarer class to the other"),
        ("Persons", f"{persons['n']:,}", f"{persons['with_several_images']:,} with several images"),
        (
            "Unreadable",
            f"{len(files['unreadable']):,}",
            f"{files['missing']['n']:,} more have no file",
        ),
        (
            "Nearly the same",
            f"{near['pairs']:,}",
            f"pairs, {near['pairs_of_two_persons']:,} of two persons",
        ),
    )
    cells = "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd><small>{note}</small></div>"
        for name, value, note in tiles
    )
    return f"<dl class=tiles>{cells}</dl>\n"


def _remarks(items: Sequence[Mapping[str, str]]) -> str:
    lines = "".join(f"<li class={item['level']}>{escape(item['text'])}</li>" for item in items)
    return f"<section><h2>Before you train</h2><ul class=remarks>{lines}</ul></section>\n"


def _balance(figures: Figures) -> str:
    classes = figures["classes"]
    bars = [("all", classes["n"], classes["n_positive"])]
    if len(figures["parts"]) > 1:
        bars += [(part, item["n"], item["n_positive"]) for part, item in figures["parts"].items()]
    lines = "".join(_bar(name, n, positive) for name, n, positive in bars)
    folds = "".join(f"<li>{escape(line)}</li>" for line in figures["folds"])
    return (
        f"<section><h2>Classes</h2>{lines}<p class=note>Positive in orange. The split that "
        f"training would make, by person:</p>"
        f"<ul class=plain>{folds}</ul></section>\n"
    )


def _bar(name: str, n: int, positive: int) -> str:
    share = positive / max(1, n)
    return (
        f"<div class=bar><b>{escape(name)}</b><span><i style='width:{share:.4%}'></i></span>"
        f"<small>{positive:,} positive, {n - positive:,} negative</small></div>"
    )


def _persons(figures: Figures, survey: Survey) -> str:
    metadata, drawings = figures["metadata"], []
    label_N, years_N = plain_numbers(survey)["age"]
    if len(years_N):
        drawings.append(
            (
                "Age by class",
                plots.class_histogram("ages", label_N, years_N, "years", bins=_AGE_BINS),
            )
        )
    counts = _grouped_counts(figures["persons"]["persons_by_images"])
    drawings.append(
        ("Images of one person", plots.count_bars("images-a-person", counts, "images", "persons"))
    )
    tables = "".join(
        _share_table(name, metadata[key])
        for name, key in (("Sex", "sex"), ("View", "view_position"))
        if set(metadata[key]) != {"not stated"}
    )
    return (
        f"<section><h2>Persons</h2>{_figures(drawings)}<div "
        f"class=pair>{tables}</div>{_ages(metadata['age_years'])}</section>\n"
    )


def _grouped_counts(persons_by_images: Mapping[str, int]) -> dict[str, int]:
    """Put persons of ten and more images into one bar."""
    counts: dict[str, int] = {}
    for images, persons in persons_by_images.items():
        name = images if int(images) < 10 else "10+"
        counts[name] = counts.get(name, 0) + persons
    return counts


def _share_table(name: str, figures: Mapping[str, Any]) -> str:
    rows = (
        table_row(
            escape(value),
            (
                f"{item['n']:,}",
                f"{item['positive_share']:.1%}",
                _interval(item["positive_share_ci95"], ".0%"),
            ),
        )
        for value, item in figures.items()
    )
    head = table_row("", ("images", "positive", "95 %"))
    return f"<div><h3>{name}</h3>{table(rows, head=head)}</div>"


def _ages(ages: Mapping[str, Any]) -> str:
    if not ages["stated"]:
        return "<p class=note>No file states an age.</p>"
    quantiles, unusual, gone = ages["quantiles"], ages["unusual"], ages["set_to_missing"]
    low, high = unusual["outside"]
    far = ", ".join(f"{years:g}" for years in unusual["ages"][:_MAX_LINES]) or "none"
    stated = escape(", ".join(item["stated"] for item in gone["ages"][:_MAX_LINES])) or "none"
    return (
        f"<p class=note>{ages['stated']:,} images state an age, {ages['missing']:,} do not. "
        f"Median {quantiles['median']:g} years, half between {quantiles['q1']:g} and "
        f"{quantiles['q3']:g}, "
        f"all between {quantiles['min']:g} and {quantiles['max']:g}.<br>"
        f"Unusual, under {low:.1f} or over {high:.1f}: {unusual['n']:,} ({far}).<br>"
        f"Set to missing, for no patient can be that old: {gone['n']:,} ({stated}).</p>"
    )


def _pictures(survey: Survey, data_dir: Path) -> str:
    found = siim.find_table(data_dir)
    runs = siim.read_runs(found) if found else {}
    negative_HW, positive_HW = mean_images(survey)
    means = (
        ("mean negative", plots.mean_image("mean-negative", negative_HW)),
        ("mean positive", plots.mean_image("mean-positive", positive_HW)),
        ("positive minus negative", plots.difference_image(positive_HW - negative_HW)),
    )
    outlined = "; the lesion's edge in orange, from the smallest to the largest" if runs else ""
    return (
        "<section><h2>Pictures</h2><p class=note>Squeezed to a square, as a network sees them.</p>"
        f"<h3>Positive{outlined}</h3>{_gallery(samples_of_class(survey, data_dir, 1, runs))}"
        f"<h3>Negative</h3>{_gallery(samples_of_class(survey, data_dir, 0, runs))}"
        f"<h3>Least like the others</h3>{_gallery(least_typical(survey, data_dir))}"
        "<h3>On average</h3>"
        "<p class=note>Sharp edges, letters or frames in the difference are something other than "
        "the disease.</p>"
        f"<section class='plots "
        f"small'>{''.join(_figure(name, svg) for name, svg in means)}</section></section>\n"
    )


def _lesions(figures: Figures, survey: Survey) -> str:
    lesions = figures["lesions"]
    if not lesions or not lesions["n"] or survey.lesions is None:
        return ""
    share, sizes = (
        lesions["share_of_image"],
        ", ".join(f"{n:,} {name}" for name, n in lesions["sizes"].items()),
    )
    drawings = (
        ("Area", plots.lesion_areas(np.array(list(survey.lesions.share_by_image.values())))),
        ("Place", plots.lesion_places(survey.lesions.frequency_hw, mean_images(survey)[1])),
    )
    return (
        f"<section><h2>Lesions</h2>{_figures(drawings)}<p class=note>{lesions['n']:,} images with "
        f"masks, "
        f"{lesions['with_several_masks']:,} of them with several, joined here. They cover "
        f"{share['median']:.2%} of the image "
        f"(median; {share['p5']:.2%} to {share['p95']:.2%} for nine of ten): "
        f"{escape(sizes)}.</p></section>\n"
    )


def _shortcuts(figures: Figures, survey: Survey) -> str:
    numbers, measured = (
        plain_numbers(survey),
        {name: item for name, item in figures["shortcuts"].items() if item},
    )
    rows = (
        table_row(
            escape(name),
            (
                f"{item['auroc']:.3f}{' <b class=flag>shortcut</b>' if item['flagged'] else ''}",
                _interval(item["auroc_ci95"], ".3f"),
                _number(item["median"]["negative"]),
                _number(item["median"]["positive"]),
            ),
        )
        for name, item in measured.items()
    )
    head = table_row("", ("AUROC alone", "95 %", "median negative", "median positive"))
    same = ", ".join(name for name, item in figures["shortcuts"].items() if not item)
    drawings = (
        (name.capitalize(), plots.class_histogram(f"by-class-{name}", *numbers[name], _UNITS[name]))
        for name in measured
        if name != "age"
    )
    more = (
        f" and {figures['sizes']['different'] - 10:,} other sizes"
        if figures["sizes"]["different"] > 10
        else ""
    )
    sizes = ", ".join(
        f"{item['columns']} x {item['rows']} ({item['n']:,})"
        for item in figures["sizes"]["most_common"]
    )
    return (
        "<section><h2>What tells the classes apart without a look at the lungs</h2>"
        "<p class=note>One plain number at a time; 0.5 tells nothing. "
        "What is far from it, a model can use instead of the disease.</p>"
        f"{table(rows, head=head)}<p "
        f"class=note>{f'Unknown, or the same in all images: {escape(same)}. ' if same else ''}"
        f"Columns x rows: {sizes}{more}.</p>{_figures(drawings)}</section>\n"
    )


def _duplicates(figures: Figures, survey: Survey, data_dir: Path) -> str:
    same, near = figures["duplicates"]["same_file"], figures["duplicates"]["near"]
    pairs = "".join(
        f"<div class=twins>{_shown(one)}{_shown(other)}<p class=note>{escape(caption)}</p></div>"
        for one, other, caption in near_pairs_shown(survey, data_dir)
    )
    listed = "".join(f"<li>{escape(', '.join(ids))}</li>" for ids in same["image_ids"][:_MAX_LINES])
    exact = (
        f"<details><summary>Which</summary><ul class=plain>{listed}</ul></details>"
        if listed
        else ""
    )
    return (
        "<section><h2>The same picture twice</h2>"
        f"<p>{same['images']:,} images in {same['groups']:,} groups are the same file, byte for "
        f"byte.</p>{exact}"
        f"<p>{near['pairs']:,} pairs in {near['clusters']:,} clusters are nearly the same (32 x "
        f"32 thumbnails correlate by "
        f"{NEAR} and more): {near['pairs_of_two_persons']:,} are said to be two persons, "
        f"{near['pairs_of_two_labels']:,} have two labels, "
        f"{near['pairs_across_parts']:,} lie across train, val and test.</p><div "
        f"class=pairs>{pairs}</div></section>\n"
    )


def _files(figures: Figures) -> str:
    files = figures["files"]
    missing = files["missing"]
    unreadable = [
        f"{item['path']}: {item['code']}: {item['detail']}" for item in files["unreadable"]
    ]
    warned = ", ".join(f"{code} ({n:,})" for code, n in figures["warnings"].items()) or "none"
    return (
        "<section><h2>Files</h2>"
        f"{_listed('Unreadable, and why', unreadable, len(unreadable))}"
        f"{_listed('In the table, without a file', missing['image_ids'], missing['n'])}"
        f"{_listed('Files without a label', files['unlisted']['paths'], files['unlisted']['n'])}"
        f"<p class=note>Warnings of the decoder: {escape(warned)}.</p></section>\n"
    )


def _listed(title: str, items: Sequence[str], count: int) -> str:
    if not count:
        return f"<p>{title}: none.</p>"
    lines = "".join(f"<li>{escape(item)}</li>" for item in items[:_MAX_LINES])
    more = (
        f"<li>and {count - _MAX_LINES:,} more, see explore.json</li>" if count > _MAX_LINES else ""
    )
    return (
        f"<details open><summary>{title}: {count:,}</summary><ul "
        f"class=plain>{lines}{more}</ul></details>"
    )


def _footer(figures: Figures) -> str:
    return (
        f"<footer>Data <code>{figures['data']['sha256'][:16]}</code>. Read with the decoder that "
        f"serves. Intervals: Wilson for "
        "shares, DeLong for AUROC; images are taken as independent. "
        "The page shows radiographs: treat it as you treat the data.</footer>\n"
    )


def _figures(drawings: Iterable[tuple[str, str]]) -> str:
    return f"<section class=plots>{''.join(_figure(name, svg) for name, svg in drawings)}</section>"


def _figure(name: str, svg: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(name)}</figcaption></figure>"


def _gallery(pictures: Iterable[Shown]) -> str:
    return f"<div class=gallery>{''.join(_shown(picture) for picture in pictures)}</div>"


def _shown(picture: Shown) -> str:
    return (
        f'<figure class=radiograph><img src="{picture.uri}" alt="radiograph" '
        f'title="{escape(picture.image_id)}">'
        f"<small>{escape(picture.caption)}</small></figure>"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _interval(bounds: Sequence[float], form: str) -> str:
    return " to ".join(format(bound, form) for bound in bounds)


_CSS = """
.remarks, .plain { list-style: none; padding: 0; margin: 0; }
.remarks li { background: var(--card); border: 1px solid var(--line); border-left-width: 4px;
  border-radius: 6px; }
.remarks li { padding: .55rem .9rem; margin-bottom: .4rem; }
.remarks .alarm { border-left-color: #c2410c; background: #fff7ed; }
.remarks .note { border-left-color: #1d4ed8; color: inherit; }
.remarks .good { border-left-color: #0f766e; color: var(--soft); }
.plain li { color: var(--soft); font-size: .9rem; overflow-wrap: anywhere; }
.bar { display: grid; grid-template-columns: 3.5rem 1fr 16rem; gap: .8rem; align-items: center;
  margin-bottom: .4rem; }
.bar span { height: 1.1rem; border-radius: 4px; background: #0f766e; overflow: hidden; }
.bar i { display: block; height: 100%; background: #c2410c; }
.pair { display: flex; flex-wrap: wrap; gap: 0 2rem; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(120px, 1fr)); gap: .6rem;
  }
.film { padding: 0; overflow: hidden; background: #0b1120; }
.film img { display: block; width: 100%; aspect-ratio: 1; }
.film small { display: block; padding: .3rem .5rem; color: #cbd5e1; font-size: .72rem;
  line-height: 1.35; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 1rem; }
.twins { display: grid; grid-template-columns: 1fr 1fr; gap: 2px; }
.twins p { grid-column: 1 / -1; margin: .2rem 0 0; font-size: .85rem; }
.plots figure { max-width: 540px; }
.plots.small { grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); }
.flag { color: #c2410c; margin-left: .4rem; font-size: .8rem; }
details summary { cursor: pointer; margin: .5rem 0; }
@media (max-width: 640px) {
  .bar { grid-template-columns: 3.5rem 1fr; }
  .bar small { grid-column: 2; }
  .plots { grid-template-columns: 1fr; }
}
"""
