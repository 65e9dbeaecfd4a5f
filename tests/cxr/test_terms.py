"""Chests and views are known in the languages of stations, whatever character set is stated."""

from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from cxr.decode import DecodeLimits, decode
from cxr.dicom.terms import folded, names_chest, views_named
from cxr.errors import NotAChest, NotFrontal
from cxr.radiograph import Radiograph
from tests.factories import chest, make_dicom

IMAGE = chest(96, 96)


def read(**tags: Any) -> Radiograph:
    return decode(make_dicom(IMAGE, **tags), limits=DecodeLimits())


@pytest.mark.parametrize(
    "stated",
    ["CHEST", "Thorax", "TÓRAX", "PECHO", "Tórax PA", "PEITO", "POITRINE", "TORACE", "Brustkorb",
     "BRUST", "胸部", "胸", "흉부", "ГРУДНАЯ КЛЕТКА", "ОГК", "Лёгкие", "ΘΩΡΑΚΑΣ", "T?RAX",
     "Ｃｈｅｓｔ", "KLATKA PIERSIOWA", "hrudník", "Akciğer", "T-D3000", "51185008"],
)  # fmt: skip
def test_a_chest_is_known_in_the_languages_of_stations(stated: str) -> None:
    assert names_chest(folded(stated))


@pytest.mark.parametrize(
    "stated",
    ["ABDOMEN", "THORACIC SPINE", "COLUMNA TORACICA", "BRUSTWIRBELSÄULE", "胸椎", "HAND", "RODILLA",
     "Грудной отдел позвоночника", "BREAST", "腹部"],
)  # fmt: skip
def test_other_body_parts_are_no_chest(stated: str) -> None:
    assert not names_chest(folded(stated))


LETTERS = {
    "TORAX ": "TÓRAX ".encode("latin-1"),
    "ABCDEF": "胸部".encode(),
    "ABCD": "胸部".encode("gb18030"),
    "GHIJKL": "ОГК".encode(),
}


@pytest.mark.parametrize("stated", LETTERS)
@pytest.mark.parametrize("character_set", [None, "ISO_IR 100", "ISO_IR 192", "GB18030"])
def test_letters_beyond_ascii_are_read_whatever_character_set_is_stated(
    stated: str, character_set: str | None
) -> None:
    read(
        BodyPartExamined=stated,
        SpecificCharacterSet=character_set,
        raw={stated: LETTERS[stated]},
    )


@pytest.mark.parametrize("body_part", ["", "ZZZ"])
@pytest.mark.parametrize("code", ["51185008", "T-D3000", "816094009"])
def test_a_coded_region_says_chest_if_the_body_part_does_not(body_part: str, code: str) -> None:
    region = Dataset()
    region.CodeValue = code
    radiograph = read(BodyPartExamined=body_part, AnatomicRegionSequence=Sequence([region]))
    assert radiograph.warnings == ()


def test_a_coded_region_does_not_overrule_a_defined_body_part() -> None:
    region = Dataset()
    region.CodeValue = "51185008"
    with pytest.raises(NotAChest):
        read(BodyPartExamined="HAND", AnatomicRegionSequence=Sequence([region]))


@pytest.mark.parametrize("modality", ["DR", "XR", "RX", "OT"])
def test_a_modality_that_is_no_defined_term_is_told(modality: str) -> None:
    codes = [warning.code.value for warning in read(Modality=modality).warnings]
    assert codes == ["modality_unusual"]


VIEW_FIELDS = (
    "ViewPosition",
    "AcquisitionDeviceProcessingDescription",
    "SeriesDescription",
    "ProtocolName",
)


@pytest.mark.parametrize("keyword", VIEW_FIELDS)
@pytest.mark.parametrize(
    "stated",
    ["CHEST,LAT", "Chest Lat", "Thorax lateral", "LL", "PERFIL", "Thorax profil", "TORACE LL",
     "Thorax seitlich", "latero-laterale", "Tx. LATERAL"],
)  # fmt: skip
def test_a_lateral_view_is_refused_wherever_the_header_states_it(keyword: str, stated: str) -> None:
    tags = {"ViewPosition": None, keyword: stated}
    if keyword == "ViewPosition":
        assert views_named(folded(stated)) == {"LATERAL"}
    else:
        with pytest.raises(NotFrontal):
            read(**tags)


@pytest.mark.parametrize(
    ("stated", "views"),
    [
        ("胸部侧位", {"LATERAL"}),
        ("胸部側面", {"LATERAL"}),
        ("胸侧", {"LATERAL"}),
        ("側方向", {"LATERAL"}),
        ("胸部正位", {"FRONTAL"}),
        ("胸部后前位", {"PA"}),
        ("胸部前后位", {"AP"}),
        ("боковая проекция", {"LATERAL"}),
        ("прямая проекция", {"FRONTAL"}),
        ("ОГК бок", {"LATERAL"}),
        ("face et profil", {"FRONTAL", "LATERAL"}),
        ("CHEST PA AND LATERAL", {"PA", "LATERAL"}),
        ("Tórax AP y lateral", {"AP", "LATERAL"}),
        ("postero-anterior", {"PA"}),
        ("p.a.", {"PA"}),
        ("bilateral", set()),
        ("left lateral decubitus", set()),
        ("AP LAT DECUB", {"AP"}),
        ("PALLIATIVE", set()),
        ("SCAPULA", set()),
        ("standard profile", set()),
    ],
)
def test_each_view_that_a_text_names_is_found(stated: str, views: set[str]) -> None:
    assert views_named(folded(stated)) == views


@pytest.mark.parametrize("stated", ["CHEST PA AND LATERAL", "face et profil", "正位及侧位"])
def test_a_text_that_names_two_views_proves_none(stated: str) -> None:
    radiograph = read(
        ViewPosition=None, SeriesDescription=stated, SpecificCharacterSet="ISO_IR 192"
    )
    assert radiograph.metadata.view_position is None


def test_the_view_position_wins_over_texts() -> None:
    assert read(ViewPosition="PA", ProtocolName="Chest Lat").metadata.view_position == "PA"


def test_a_frontal_view_by_protocol_is_named_with_its_source() -> None:
    metadata = read(ViewPosition=None, ProtocolName="Thorax p.a.").metadata
    assert (metadata.view_position, metadata.source.view_position) == ("PA", "ProtocolName")
