"""A bundle whose probabilities are fitted to one site, by predictions with a known truth."""

from pathlib import Path

import numpy as np
import pytest

from cxr.bundle import read_bundle
from training.bundle.site_recalibration import TooFewImages, recalibrate_for_site
from training.data.index import read_table
from training.evaluation.labelled_images import roles
from training.evaluation.prediction import LabelledPrediction

IMAGES = 1600


def site_predictions(count: int = IMAGES) -> list[LabelledPrediction]:
    """Two images a person; the truth is far less sure than the logits, and positives are rarer."""
    rng = np.random.default_rng(3)
    logit_N = rng.normal(0.0, 4.0, count)
    label_N = rng.random(count) < 1 / (1 + np.exp(-(0.4 * logit_N - 0.8)))
    return [
        LabelledPrediction(
            file=f"ward/{number}.png",
            person_group=f"name-{number // 2}",
            label=int(label_N[number]),
            logit=float(logit_N[number]),
            probability=0.5,
            image_id=f"secret-{number}",
            sha256=f"{number:064x}",
            role="",
            plain_logit=float(logit_N[number]),
            spread=0.0,
            novelty=1.0,
            is_novel=False,
            age_years=None,
            sex=None,
            view_position=None,
            warnings="",
        )
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def recalibrated(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("site")
    return recalibrate_for_site(bundle_dir, site_predictions(), "ward", store)


def test_the_new_version_is_a_whole_bundle_with_a_hash_of_its_own(
    recalibrated: Path, bundle_dir: Path
) -> None:
    before, after = read_bundle(bundle_dir), read_bundle(recalibrated)

    assert (after.manifest.model, after.manifest.version) == ("patch", 2)
    assert after.sha256 != before.sha256
    assert after.manifest.cam == before.manifest.cam
    np.testing.assert_array_equal(after.golden.logit_N, before.golden.logit_N)


def test_its_probabilities_fit_persons_that_the_calibration_did_not_see(
    recalibrated: Path,
) -> None:
    manifest = read_bundle(recalibrated).manifest
    found = manifest.metrics.recalibration

    assert found is not None
    assert found.ece is not None
    assert found.ece_before is not None
    assert found.ece < 0.5 * found.ece_before
    assert manifest.readings["plain"].calibration.slope == pytest.approx(0.4, abs=0.15)
    assert found.n_fitted + manifest.metrics.n == IMAGES
    assert "Recalibrated for `ward`" in read_bundle(recalibrated).card


def test_probabilities_refer_to_the_share_of_positives_at_the_site(
    recalibrated: Path, bundle_dir: Path
) -> None:
    share = np.mean([prediction.label for prediction in site_predictions()])
    assert read_bundle(recalibrated).manifest.prevalence == pytest.approx(share, abs=0.02)
    before = read_bundle(bundle_dir).manifest
    assert before.prevalence == before.training_data.prevalence


def test_the_bundle_knows_the_sites_images_again_and_names_no_person(recalibrated: Path) -> None:
    text = (recalibrated / "splits.csv").read_text()

    assert roles(read_bundle(recalibrated))[f"{7:064x}"] == "calibrated"
    assert "secret" not in text
    assert "name-" not in text
    assert len(read_table(recalibrated / "splits.csv")) == 60 + IMAGES


def test_few_images_are_refused(bundle_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(TooFewImages, match="it takes 20 new images of each class"):
        recalibrate_for_site(bundle_dir, site_predictions(60), "ward", tmp_path)
    assert list(tmp_path.rglob("bundle.json")) == []
