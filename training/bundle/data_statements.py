"""What is published about the data sets that the recipes name (`cxr.study_schema`).

Other data come with a file of their own (`export --study FILE`). What a publication does not say
is left out here, and the card calls it not stated.
"""

from pathlib import Path

from pydantic import ValidationError

from cxr.study_schema import DataStatement
from training.errors import TrainingError
from training.recipe.catalogue import (
    pneumonia_efficientnet_b0,
    pneumothorax_efficientnet_b0,
    pneumothorax_transfer,
)

_CHILDREN = DataStatement(
    setting="Looking back, from routine care of children of 1 to 5 years at Guangzhou Women and "
    "Children's Medical Center (Kermany et al. 2018, 10.1016/j.cell.2018.02.010); one centre.",
    eligibility="Anterior-posterior radiographs; scans of low quality were taken out by its "
    "authors. Age and sex of a child are not published.",
    reference_standard="Normal, or pneumonia by bacteria or virus: the diagnosis of two physicians "
    "on each image; a third checked the official test part only.",
    external_evidence="A network that learned from these images fell from an AUROC of 0.95 to 0.54 "
    "on children's radiographs of another hospital (Xin et al. 2021, "
    "10.1007/s10140-021-01954-x). Expect the same here until your own images say otherwise.",
)

_SIIM_LABELS = (
    "Pneumothorax or none, outlined and adjudicated by radiologists on radiographs of "
    "ChestX-ray14, in part from outlines that a model had proposed (Filice et al. 2020, "
    "10.1007/s10278-019-00299-9)."
)
_DRAINS = (
    "Whether a drain is present can't be told: no table of these images says so. Many positive "
    "radiographs of ChestX-ray14 are of lungs with a drain, so it may be what the model sees."
)
_ADULTS = DataStatement(
    setting="Looking back, from care at the NIH Clinical Center, Bethesda (Wang et al. 2017, "
    "ChestX-ray8); one centre.",
    acquisition="JPEG images of 8 bit inside DICOM files; device and exposure were taken out by "
    "the owners.",
    deidentification="By the owners, before publication.",
    reference_standard=_SIIM_LABELS,
    treatment=_DRAINS,
    external_evidence="At a second hospital, a published network for pneumothorax had a positive "
    "predictive value of 0.525, and of 0.886 after it had learned from 50 radiographs of that "
    "hospital (10.1177/10815589231208479). How this one does elsewhere is unknown.",
)
_ADULTS_AND_REPORTS = _ADULTS.model_copy(
    update={
        "reference_standard": _SIIM_LABELS
        + " Other radiographs, which are only learned from, have labels that were mined from "
        "reports.",
        "reference_variability": "Of 238 radiographs of ChestX-ray14 whose report names a "
        "pneumothorax, radiologists saw one in 109; of 4,138 others, in 129 (readings of "
        "Majkowska et al. 2020). Readers' agreement on the outlines is not published.",
    }
)

_KNOWN = {
    pneumonia_efficientnet_b0().data_name: _CHILDREN,
    pneumothorax_efficientnet_b0().data_name: _ADULTS,
    pneumothorax_transfer().data_name: _ADULTS_AND_REPORTS,
}


def known_statement(data_name: str) -> DataStatement:
    """Return what is published about a data set; an empty statement if it is none of these."""
    return _KNOWN.get(data_name, DataStatement())


def read_statement(path: Path) -> DataStatement:
    """Read a JSON file with the fields of `DataStatement`; raise `TrainingError`."""
    try:
        return DataStatement.model_validate_json(path.read_bytes())
    except ValidationError as exc:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg']}"
            for fault in exc.errors()
        )
        known = ", ".join(DataStatement.model_fields)
        raise TrainingError(f"{path} states nothing usable: {faults}; known keys: {known}") from exc
