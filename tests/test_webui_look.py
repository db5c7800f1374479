"""How the page looks, as far as its style sheet and its theme tell: contrast in both themes."""

import re
from pathlib import Path

import pytest

import webui

FOLDER = Path(webui.__file__).parent
CSS = (FOLDER / "page.css").read_text(encoding="utf-8")
APP = (FOLDER / "app.py").read_text(encoding="utf-8")
TEXT, GRAPHIC = 4.5, 3.0
"""Least contrast of WCAG 2.2 AA for text (1.4.3), and for lines and bars that carry meaning (1.4.11)."""

ON_OURS = [(name, ground, TEXT) for name in ("text", "dim", "bad", "good", "accent") for ground in ("card", "soft")]
ON_OURS += [("text", "mark", TEXT), ("accent", "mark", TEXT), ("sound", "card", TEXT)]
ON_OURS += [(name, "soft", GRAPHIC) for name in ("picture", "sound", "fused")]
ON_PAGE = ["text", "dim", "bad", "good", "accent", "sound"]
THEME = [
    ("button_primary_text_color", "button_primary_background_fill"),
    ("button_primary_text_color", "button_primary_background_fill_hover"),
    ("block_label_text_color", "block_background_fill"),
    ("block_title_text_color", "block_background_fill"),
    ("block_info_text_color", "block_background_fill"),
    ("input_placeholder_color", "input_background_fill"),
]


def luminance(colour: str) -> float:
    """Relative luminance of `#rgb` or `#rrggbb`, as WCAG 2.2 defines it."""
    digits = colour.lstrip("#")
    if len(digits) == 3:
        digits = "".join(2 * digit for digit in digits)
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, from 1 to 21."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def colours(theme: str) -> dict[str, str]:
    """Our variables in one theme."""
    block = re.search(r"\.dark \{([^}]*)\}" if theme == "dark" else r":root \{([^}]*)\}", CSS)
    assert block is not None
    return dict(re.findall(r"--vx-(\w+): (#[0-9a-f]+);", block[1]))


def gradios(name: str, theme: str) -> str:
    """A colour that the theme sets."""
    found = re.search(rf"\b{name}{'_dark' if theme == 'dark' else ''}=\"(#[0-9a-f]+)\"", APP)
    assert found is not None, name
    return found[1]


def test_contrast_is_that_of_the_guidelines() -> None:
    """Black on white has 21, and a known pair just fails."""
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_have_enough_contrast(theme: str) -> None:
    """Text on every ground it stands on, and bars and curves on theirs, meet AA in both themes."""
    ours, page = colours(theme), gradios("body_background_fill", theme)
    found = {(name, ground): (contrast(ours[name], ours[ground]), least) for name, ground, least in ON_OURS}
    found |= {(name, "page"): (contrast(ours[name], page), TEXT) for name in ON_PAGE}
    found |= {pair: (contrast(gradios(pair[0], theme), gradios(pair[1], theme)), TEXT) for pair in THEME}
    on_buttons = "#10131a" if theme == "dark" else "#fff"
    assert f"color: {on_buttons}" in CSS
    found["buttons", "accent"] = (contrast(on_buttons, ours["accent"]), TEXT)
    on_danger = "#1a1010" if theme == "dark" else "#fff"
    found["buttons", "bad"] = (contrast(on_danger, ours["bad"]), TEXT)
    weak = {pair: round(value, 2) for pair, (value, least) in found.items() if value < least}
    assert not weak, weak


def test_focus_is_seen() -> None:
    """Everything that can be focused gets an outline, and none is taken away."""
    assert ":focus-visible { outline: 2px solid" in CSS
    assert not re.search(r"outline:\s*(0|none)", CSS)
