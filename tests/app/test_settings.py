from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import Settings, SettingsError, variable_names
from app.settings.help import describe_settings


def test_a_setting_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_PORT", "9000")
    monkeypatch.setenv("CXR_STORE", "/models")

    settings = Settings.read()

    assert (settings.port, settings.store) == (9000, Path("/models"))


def test_an_unknown_variable_stops_the_start_and_names_the_known_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CXR_PROT", "9000")

    with pytest.raises(SettingsError, match=r"CXR_PROT.*CXR_PORT"):
        Settings.read()


def test_every_fault_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_PORT", "99999")
    monkeypatch.setenv("CXR_DEVICE", "abacus")

    with pytest.raises(SettingsError) as error:
        Settings.read()

    assert {line.split(":")[0] for line in str(error.value).splitlines()} == {
        "CXR_PORT",
        "CXR_DEVICE",
    }


def test_settings_can_not_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


def test_every_setting_is_described_with_its_variable() -> None:
    text = describe_settings()

    for variable, name in variable_names().items():
        assert f"{variable} = " in text
        assert Settings.model_fields[name].description


def test_every_number_has_bounds() -> None:
    for name, schema in Settings.model_json_schema()["properties"].items():
        if schema.get("type") in ("integer", "number"):
            assert "maximum" in schema, name
            assert "minimum" in schema or "exclusiveMinimum" in schema, name


def test_the_limits_of_decoding_follow_the_settings() -> None:
    limits = Settings(max_upload_bytes=2000, max_pixels=5000, max_inflated_bytes=4000).decode_limits

    assert (limits.max_bytes, limits.max_pixels, limits.max_inflated_bytes) == (2000, 5000, 4000)
