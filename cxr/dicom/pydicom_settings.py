"""Settings of pydicom: it logs nothing, since its messages quote the patient's values."""

import pydicom.charset
import pydicom.config
from pydicom.charset import default_encoding


def quiet_pydicom() -> None:
    """Keep pydicom from logging values, which are the patient's, and from failing over the name of
    a character set.
    """
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    pydicom.config.logger.disabled = True
    pydicom.charset.python_encoding = _CharacterSets(pydicom.charset.python_encoding)


class _CharacterSets(dict[str, str]):
    """Character sets by DICOM's names (PS3.3 C.12.1.1.2).

    pydicom asks Python about a name that it does not know, and Python refuses to be asked about one
    with a NUL in it.
    """

    def __missing__(self, name: str) -> str:
        if "\0" in name:
            return default_encoding
        raise KeyError(name)
