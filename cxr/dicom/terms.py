"""What stations write for a chest and for a view, in the languages of their users.

Sources: the defined terms of PS3.3 C.7.3.1.1 (ViewPosition) and PS3.16 Annex L (body parts), the
radiological terms of RadLex and its translations, and what vendors write in
AcquisitionDeviceProcessingDescription and ProtocolName (Fuji "CHEST,LAT", GE "Chest Lat", Canon
"CHEST LATERAL"), as public collections and trackers show it.

Words are in capitals, without accents.
"""

import re
import unicodedata

CHEST_WORDS = (
    "CHEST", "THORA", "LUNG", "THX", "CXR",  # English; Latin, French, German, Dutch, Swedish
    "TORAX", "TORACE", "TORACI", "PECHO", "PEITO", "PETTO",  # Spanish, Portuguese, Italian
    "PULM", "POLMON", "POUMON", "POITRINE", "PLAMAN",  # lung; French chest; Romanian lung
    "BRUSTKORB", "BROSTKORG", "BRYSTKASSE", "BORSTKAS",  # German, Swedish, Danish, Dutch
    "KLATKA PIERS", "KLP", "PLUC", "HRUDN", "MELLKAS",  # Polish, Czech, Hungarian
    "AKCIGER", "GOGUS", "KEUHKO",  # Turkish, Finnish
    "\u0413\u0420\u0423\u0414\u041d", "\u041b\u0415\u0413\u041a\u0418",  # Russian
    "\u041e\u0413\u041a", "\u0424\u041b\u0413",  # Russian abbreviations
    "\u0398\u03a9\u03a1\u0391\u039a",  # Greek
    "\u80f8", "\u80ba",  # Chinese and Japanese: chest, lung
    "\ud749\ubd80", "\u1112\u1172\u11bc\u1107\u116e",  # Korean, composed and not
)  # fmt: skip
"""Parts of words that mean chest or lungs."""

_WHOLE_CHEST_WORDS = frozenset({"BRUST", "RINTA", "BRINGA", "TX", "TORAKS"})

OTHER_WORDS = (
    "SPINE", "VERTEB", "COLUMN", "COLONN", "LUMB", "RACHI", "WIRBEL", "BWS",
    "\u041f\u041e\u0417\u0412\u041e\u041d\u041e\u0427", "\u690e",
)  # fmt: skip
"""Words that make a chest the level of a spine: "THORACIC SPINE"."""

_CHEST_PATTERNS = re.compile(
    r"(?<![A-Z])T.{1,2}RAX|\bT-D3000\b|\bT-28000\b|\b51185008\b|\b816094009\b"
)
"""An accented letter that was replaced, and codes where words belong (PS3.16 CID 4031)."""

_LATERAL = (
    r"LATERAL|LATERALE|LAT|LATERALIS|LL|RL|LLAT|RLAT|LAT\.?[LR]|[LR]-?LAT|LATERO-?LATERALE?"
    r"|PERFIL|PROFIL|PROFILO|SEITLICH|SEITL|SEITENBILD|SAGITTAL|ZIJDELINGS|BOCZN\w*"
    r"|BOK|BOKOVAYA|\u0411\u041e\u041a|\u0411\u041e\u041a\u041e\u0412"
)
_FRONTAL = r"FRONTAL\w*|FACE|FRENTE|FRONTE|\u041f\u0420\u042f\u041c"
_PA = r"PA|P\.A\.?|P-A|POSTERO-?ANTERIOR\w*|DORSO-?VENTRAL\w*"
_AP = r"AP|A\.P\.?|A-P|ANTERO-?POSTERIOR\w*|VENTRO-?DORSAL\w*"

_VIEW_PATTERNS = {
    "LATERAL": re.compile(
        rf"(?<![A-Z0-9])(?:{_LATERAL})(?![A-Z0-9])|[\u4fa7\u5074][\u4f4d\u9762\u65b9\u80f8]|\u80f8[\u4fa7\u5074]",
        re.ASCII,
    ),
    "FRONTAL": re.compile(
        rf"(?<![A-Z0-9])(?:{_FRONTAL})(?![A-Z0-9])|\u6b63[\u4f4d\u9762]", re.ASCII
    ),
    "PA": re.compile(
        rf"(?<![A-Z0-9])(?:{_PA})(?![A-Z0-9])|[\u540e\u5f8c]\u524d\u4f4d|\u80cc\u8179", re.ASCII
    ),
    "AP": re.compile(
        rf"(?<![A-Z0-9])(?:{_AP})(?![A-Z0-9])|\u524d[\u540e\u5f8c]\u4f4d|\u8179\u80cc", re.ASCII
    ),
}
"""The view that a word names; letters of other scripts may touch Latin ones."""

_DECUBITUS = re.compile(r"(?:LAT\w*\.?\W+)?(?:\w+\W+)?DECUB\w*|(?<![A-Z0-9])[LR]LD(?![A-Z0-9])")
"""A patient who lies on one side and is exposed from the front."""


def folded(text: str) -> str:
    """Return a text in capitals, without accents; full-width letters become plain ones."""
    decomposed = unicodedata.normalize("NFKD", text.upper())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter)).upper()


def names_chest(text: str) -> bool:
    """Tell whether a folded text names the chest or the lungs, and not the spine behind them."""
    if any(word in text for word in OTHER_WORDS):
        return False
    return (
        any(word in text for word in CHEST_WORDS)
        or text in _WHOLE_CHEST_WORDS
        or _CHEST_PATTERNS.search(text) is not None
    )


def views_named(text: str) -> set[str]:
    """Return which of PA, AP, FRONTAL and LATERAL a folded text names."""
    plain = _DECUBITUS.sub(" ", text)
    return {view for view, pattern in _VIEW_PATTERNS.items() if pattern.search(plain)}
