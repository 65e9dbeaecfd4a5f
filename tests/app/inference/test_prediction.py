from app.inference.prediction import merge_metadata
from cxr.radiograph import Metadata, MetadataSource

STATED = Metadata(40.0, "F", "AP", MetadataSource("request", "request", "request"))


def test_a_file_that_states_nothing_is_filled_from_the_request() -> None:
    assert merge_metadata(Metadata(), STATED) == STATED


def test_what_the_file_states_wins() -> None:
    of_file = Metadata(58.0, "M", "PA", MetadataSource("PatientAge", "PatientSex", "ViewPosition"))

    assert merge_metadata(of_file, STATED) == of_file


def test_each_fact_is_filled_alone() -> None:
    of_file = Metadata(sex="M", source=MetadataSource(sex="PatientSex"))
    stated = Metadata(age_years=0.0, source=MetadataSource(age_years="request"))

    merged = merge_metadata(of_file, stated)

    assert merged == Metadata(0.0, "M", None, MetadataSource("request", "PatientSex", None))
