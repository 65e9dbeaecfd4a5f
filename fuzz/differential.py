"""Compare quirky files with their plain twins, and with DCMTK's rendering.

    make differential FILES=3000      (or: python -m fuzz.differential FOLDER FILES)

A difference of a probability over 0.01 without a warning, a correction or a refusal is a finding,
as is a rendering that DCMTK gives otherwise. The quirks are random and seeded by their number.
"""

import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image

from cxr.decode import DecodeLimits, decode, quiet_libraries
from cxr.decode_and_preprocess import Preparation, prepare
from cxr.errors import ImageError
from cxr.orientation import upright
from cxr.preprocess import PreprocessSpec
from fuzz.quirks import BORDER, write_quirky
from tests.factories import make_dicom

MAX_DIFFERENCE = 0.01
MAX_GREY_DIFFERENCE = 2.0
"""Mean difference of grey levels, of 255, between two renderings; lossy decoders round apart."""

SIDE = 512
DCMTK_EVERY = 3
_OF_THE_LOOKS = {"looks_inverted", "looks_unlike_a_chest", "few_greys"}
"""Warnings that a wrongly read image may have by itself, and that do not count as telling."""

_ONE_WORD = {"body_part_unstated", "modality_unusual", "color_input"}
"""Warnings that say nothing of how the pixels were read."""


@dataclass
class Tally:
    """What came of the files."""

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    largest: float = 0.0
    rendered: int = 0


class Model:
    """The newest shipped pneumothorax model, without a service around it."""

    def __init__(self, folder: Path) -> None:
        newest = max(int(path.name) for path in folder.iterdir() if path.name.isdigit())
        bundle = json.loads((folder / str(newest) / "bundle.json").read_text())
        self.spec = PreprocessSpec(**bundle["preprocess"])
        self._calibration = bundle["readings"]["plain"]["calibration"]
        self._graph = ort.InferenceSession(str(folder / str(newest) / "model.onnx"))

    def answer(self, data: bytes) -> tuple[float, set[str]]:
        """Return the probability of a file, and its warnings; raise `ImageError`."""
        prepared = prepare(data, Preparation(self.spec, DecodeLimits(), "refuse"))
        (logit,) = self._graph.run(["logit"], {"image": prepared.image_HW[None]})
        slope, intercept = self._calibration["slope"], self._calibration["intercept"]
        score = slope * float(np.asarray(logit)[0]) + intercept
        return 1 / (1 + math.exp(-score)), {warning.code.value for warning in prepared.warnings}


def images(folder: Path) -> list[NDArray[np.uint8]]:
    """Return the radiographs, averaged, with sides that differ for every second one."""
    found = []
    for number, path in enumerate(sorted(folder.rglob("*.dcm"))):
        pixels_HW = decode(path.read_bytes(), limits=DecodeLimits()).pixels_HW
        small = Image.fromarray(pixels_HW).resize((SIDE, SIDE), Image.Resampling.BOX)
        image_HW = np.array(small)
        image_HW = image_HW[:, : SIDE - 40] if number % 2 else image_HW
        found.append(np.pad(image_HW[BORDER:-BORDER, BORDER:-BORDER], BORDER))
    return found


def compare(model: Model, radiographs: list[NDArray[np.uint8]], count: int) -> Tally:
    """Compare files with their twins."""
    tally = Tally()
    twins: dict[int, tuple[float, set[str]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(count):
            number = seed % len(radiographs)
            image_HW = radiographs[number]
            if number not in twins:
                twins[number] = model.answer(make_dicom(image_HW))
            data, names, is_damaged = write_quirky(image_HW, seed)
            label = f"{seed}: {', '.join(names)}"
            _compare_answers(model, data, twins[number], label, tally)
            if seed % DCMTK_EVERY == 0 and not is_damaged:
                _compare_rendering(data, Path(folder) / "file.dcm", label, tally)
    return tally


def _compare_answers(
    model: Model, data: bytes, twin: tuple[float, set[str]], label: str, tally: Tally
) -> None:
    try:
        probability, codes = model.answer(data)
    except ImageError as error:
        tally.outcomes[f"refused: {error.code}"] += 1
        if "damaged" not in label:
            tally.findings.append(f"{label}: refused, {error.code}")
        return
    told = codes - twin[1] - _ONE_WORD
    difference = abs(probability - twin[0])
    if difference <= MAX_DIFFERENCE:
        tally.outcomes["as the twin"] += 1
        tally.largest = max(tally.largest, difference)
    elif told:
        tally.outcomes[f"told: {' '.join(sorted(told))}"] += 1
        if told <= _OF_THE_LOOKS:
            tally.findings.append(f"{label}: only {' '.join(sorted(told))}")
    else:
        tally.outcomes["differs silently"] += 1
        tally.findings.append(f"{label}: differs by {difference:.3f}")


def _compare_rendering(data: bytes, path: Path, label: str, tally: Tally) -> None:
    if any(name in label for name in ("exchanged", "YCbCr", "junk", "shutter")):
        return  # DCMTK shows these otherwise on purpose
    path.write_bytes(data)
    theirs_HW = _dcmtk(path, label)
    if theirs_HW is None:
        return
    try:
        ours = decode(data, limits=DecodeLimits())
    except ImageError:
        return
    theirs_HW = upright(theirs_HW, ours.processing.orientation)
    tally.rendered += 1
    difference = float(np.abs(ours.pixels_HW.astype(int) - theirs_HW).mean())
    if difference > MAX_GREY_DIFFERENCE:
        tally.findings.append(f"{label}: {difference:.1f} grey levels from DCMTK's rendering")


def _dcmtk(path: Path, label: str) -> NDArray[np.uint8] | None:
    """Return DCMTK's rendering, None if it reads no such file.

    DCMTK takes a VOI LUT's stated depth, and viewers take its entries.
    """
    if "VOI LUT" in label and "of 16 bits" not in label:
        return None
    out = path.with_suffix(".pgm")
    out.unlink(missing_ok=True)
    program = shutil.which("dcml2pnm" if "JPEG-LS" in label else "dcmj2pnm")
    if program is None or "JPEG 2000" in label:
        return None
    voi = ["+Wl", "1"] if "VOI LUT" in label else ["+Wi", "1"] if "window" in label else []
    if "negative slope" in label:
        voi = ["+Wi", "1"]
    command = [program, "--write-raw-pnm", *voi, str(path), str(out)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    if done.returncode or not out.exists():
        return None
    with Image.open(out) as picture:
        return np.array(picture.convert("L"))


def lines(tally: Tally, count: int) -> Iterator[str]:
    """Yield the report."""
    yield f"{count} files; {tally.rendered} compared with DCMTK's rendering"
    for outcome, number in tally.outcomes.most_common():
        yield f"{number:6d}  {outcome}"
    yield f"largest difference that counts as none: {tally.largest:.4f}"
    yield f"findings: {len(tally.findings)}"
    yield from tally.findings[:200]


def main() -> int:
    """Run the comparison; the exit status is 1 if there is a finding."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    quiet_libraries()
    model = Model(Path("model_store/pneumothorax"))
    tally = compare(model, images(folder), count)
    sys.stdout.write("\n".join(lines(tally, count)) + "\n")
    return 1 if tally.findings else 0


if __name__ == "__main__":
    sys.exit(main())
