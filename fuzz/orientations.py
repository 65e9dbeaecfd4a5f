"""The eight ways in which a radiograph may be stored, by the direction of its rows and columns."""

ORIENTED = {
    ("L", "F"): lambda image_HW: image_HW,
    ("R", "F"): lambda image_HW: image_HW[:, ::-1],
    ("L", "H"): lambda image_HW: image_HW[::-1],
    ("R", "H"): lambda image_HW: image_HW[::-1, ::-1],
    ("F", "L"): lambda image_HW: image_HW.T,
    ("F", "R"): lambda image_HW: image_HW[:, ::-1].T,
    ("H", "L"): lambda image_HW: image_HW[::-1].T,
    ("H", "R"): lambda image_HW: image_HW[::-1, ::-1].T,
}
"""The stored image whose rows and columns run this way."""
