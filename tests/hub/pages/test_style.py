"""The style sheet keeps its word: text can be read in light and in dark (WCAG 2.2, 1.4.3 and 1.4.11)."""

import re

import pytest

from hub.pages.render import STATIC

LIGHT, DARK = re.findall(r":root \{(.*?)\n *\}", STATIC["farebox.css"], re.DOTALL)
TEXT = {
    "text": ("page", "panel", "sunken", "waiting-wash"),
    "soft": ("page", "panel", "sunken"),
    "accent": ("page", "panel"),
    "on-accent": ("accent",),
    "good": ("panel",),
    "waiting": ("page", "panel"),
    "bad": ("page", "panel", "bad-wash"),
    "panel": ("bad",),
}


def luminance(colour: str) -> float:
    """Relative luminance of "#rrggbb", 0 to 1."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_outlines_stand_out(scheme: str) -> None:
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", scheme))
    for text, surfaces in TEXT.items():
        for surface in surfaces:
            assert contrast(colours[text], colours[surface]) >= 4.5, (text, surface)
    for surface in ("page", "panel"):
        assert contrast(colours["edge"], colours[surface]) >= 3, surface


def test_nothing_is_fetched_by_the_style_sheet() -> None:
    assert "url(" not in STATIC["farebox.css"]
    assert "@import" not in STATIC["farebox.css"]
