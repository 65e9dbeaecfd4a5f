from pathlib import Path

import pytest

from gateway.settings import GatewayConfigError, load_settings

GOOD = """\
[node]
ae_title = "CXRGATE"

[[peers]]
ae_title = "ROOM1"
addresses = ["10.1.0.0/16"]

[[destinations]]
name = "archive"
stow_url = "http://127.0.0.1:8042/dicom-web"

[[rules]]
name = "adults"
modality = ["CR", "DX"]
age_years = {min = 18, unstated = false}
destinations = ["archive"]

[[rules]]
name = "others"
silent = true
"""


def load(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    load_settings(path)


def test_a_good_file_is_read(tmp_path: Path) -> None:
    load(tmp_path, GOOD)


@pytest.mark.parametrize(
    ("old", "new", "line", "word"),
    [
        ('ae_title = "CXRGATE"', 'ae_title = "SEVENTEEN-LETTERS"', 2, "16"),
        ('ae_title = "CXRGATE"', 'ae_titel = "CXRGATE"', 2, "ae_titel"),
        ('addresses = ["10.1.0.0/16"]', 'addresses = ["10.1.0.0/99"]', 6, "addresses"),
        ('stow_url = "http:', 'stow_url = "ftp:', 10, "stow_url"),
        ('modality = ["CR", "DX"]', 'modality = ["cr"]', 14, "modality"),
        ("age_years = {min = 18", "age_years = {min = -1", 15, "age_years"),
        ('destinations = ["archive"]', 'destinations = ["archiv"]', 16, "archiv"),
        ('name = "others"', 'name = "adults"', 19, "twice"),
        ("silent = true", "", 18, "silent"),
        ("silent = true", 'calling_ae = ["ROOM2"]\nsilent = true', 20, "ROOM2"),
        ("[node]", "[node", 1, "line 1"),
        ("[[destinations]]", '[[peers]]\nae_title = "ROOM1"\n\n[[destinations]]', 9, "twice"),
        ("[node]", '[service]\nurl = "127.0.0.1:8000"\n[node]', 2, "url"),
    ],
)
def test_a_wrong_file_is_refused_with_the_line(
    tmp_path: Path, old: str, new: str, line: int, word: str
) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(GatewayConfigError) as caught:
        load(tmp_path, GOOD.replace(old, new))
    assert f":{line}:" in str(caught.value) or f"line {line}" in str(caught.value)
    assert word in str(caught.value)


def test_a_file_that_is_missing_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(f'{GOOD}\n[http]\nport = 1\nkey_file = "{tmp_path}/key"\n')
    load_settings(path)
    with pytest.raises(GatewayConfigError, match=r":24: http\.key_file: there is no file"):
        load_settings(path, needs_files=True)
    (tmp_path / "key").write_text("secret")
    load_settings(path, needs_files=True)


def test_a_node_without_peers_says_so_or_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace('[[peers]]\nae_title = "ROOM1"\naddresses = ["10.1.0.0/16"]\n', "")
    with pytest.raises(GatewayConfigError, match="accept_any_peer"):
        load(tmp_path, text)
    load(tmp_path, text.replace("[node]", "[node]\naccept_any_peer = true"))


def test_http_beyond_the_loopback_wants_a_key(tmp_path: Path) -> None:
    with pytest.raises(GatewayConfigError, match="key_file"):
        load(tmp_path, GOOD + '[http]\nhost = "0.0.0.0"\n')
    load(tmp_path, GOOD + '[http]\nhost = "0.0.0.0"\nkey_file = "key"\n')
