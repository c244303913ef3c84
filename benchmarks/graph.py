"""A graph of lines as SVG, written by hand: nothing has to be installed for it. Measures nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 60
COLOURS = ("#c0392b", "#2471a3", "#1e8449", "#7d3c98")

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        label: what is on it, with its unit.
        values: where it is marked; it reaches from the first to the last.
        logarithmic: equal distances are equal ratios.
    """

    label: str
    values: Sequence[float]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """How far along the axis a value is, from 0 to 1."""
        low, high = self._scaled(self.values[0]), self._scaled(self.values[-1])
        return min(1.0, max(0.0, (self._scaled(value) - low) / (high - low)))

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, 1e-9)) if self.logarithmic else value


def graph(title: str, x: Axis, y: Axis, lines: Mapping[str, Points]) -> str:
    """The graph.

    Args:
        lines: points by the name of their line.
    """
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(WIDTH / 2, 20, title, "middle"),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 15, x.label, "middle"),
        _text(LEFT, TOP - 8, y.label, "middle"),
        *_marks(x, y),
    ]
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [(_across(x.share(one)), _up(y.share(other))) for one, other in points]
        path = " ".join(f"{one:.1f},{other:.1f}" for one, other in places)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body += [f'<circle cx="{one:.1f}" cy="{other:.1f}" r="3" fill="{colour}"/>' for one, other in places]
        body.append(_text(LEFT + 12, TOP + 16 + 16 * number, name, "start", colour))
    return "\n".join([*body, "</svg>\n"])


def _across(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _up(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _marks(x: Axis, y: Axis) -> Iterator[str]:
    for value in x.values:
        at = _across(x.share(value))
        yield f'<line x1="{at:.1f}" y1="{_up(0)}" x2="{at:.1f}" y2="{_up(1)}" stroke="#ddd"/>'
        yield _text(at, HEIGHT - BOTTOM + 18, f"{value:g}", "middle")
    for value in y.values:
        at = _up(y.share(value))
        yield f'<line x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}" stroke="#ddd"/>'
        yield _text(LEFT - 8, at + 4, f"{value:g}", "end")


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
