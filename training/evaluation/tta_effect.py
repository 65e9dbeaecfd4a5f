"""The effect of test-time augmentation, measured on the same images with and without it.

Shape suffixes: A profiles (plain, then the policy), S seeds, K views of a measure, N images.
"""

from collections.abc import Sequence

import numpy as np

from cxr.evaluation_schema import TtaEffect, TtaMeasure
from training.evaluation.prediction import LabelledPrediction
from training.stats.metrics import Floats, Labels01
from training.stats.paired_comparison import MEASURES, resample


def tta_effect(
    policy: str,
    label_N: Labels01,
    plain_logit_N: Floats,
    tta_logit_N: Floats,
    groups_N: Sequence[str],
) -> TtaEffect | None:
    """Measure both decision profiles and their paired difference, with 95 % intervals by person.
    Return None with one class.

    Rates are those at logit 0 of each profile.
    """
    if len(set(label_N.tolist())) < 2:
        return None
    found = resample(label_N, np.stack([plain_logit_N, tta_logit_N])[:, None, None], groups_N)
    rows = {}
    for number, measure in enumerate(MEASURES):
        if measure == "stressed_auroc":
            continue  # nothing is corrupted here
        (plain, plain_ci95), (tta, tta_ci95) = found.mean(0, number), found.mean(1, number)
        gain, gain_ci95 = found.difference(1, 0, number)
        rows[measure] = TtaMeasure(
            plain=plain,
            plain_ci95=plain_ci95,
            tta=tta,
            tta_ci95=tta_ci95,
            difference=gain,
            difference_ci95=gain_ci95,
        )
    return TtaEffect(policy=policy, n=len(label_N), measures=rows)


def effect_of_tta(policy: str, predictions: Sequence[LabelledPrediction]) -> TtaEffect | None:
    """Compare the plain view with a TTA policy, after a run with that policy. Return None with one
    class.
    """
    return tta_effect(
        policy,
        np.array([prediction.label for prediction in predictions], dtype=np.int_),
        np.array([prediction.plain_logit for prediction in predictions]),
        np.array([prediction.logit for prediction in predictions]),
        [prediction.person_group for prediction in predictions],
    )
