"""The Pareto plot: attainment against GPU-hours, one mark a point, a line through each front; SVG as text. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

from autoscaler.replay.pareto import Point, front

_WIDTH: Final = 720
_HEIGHT: Final = 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 150, 40, 52
# Readable on white and for most eyes that see colours differently (Okabe and Ito).
_COLOURS: Final[Mapping[str, str]] = {
    "ours": "#0072B2",
    "keda": "#D55E00",
    "hpa": "#CC79A7",
    "kpa": "#E69F00",
    "static_best": "#666666",
    "oracle": "#009E73",
}


def svg(title: str, lines: Mapping[str, Sequence[Point]]) -> str:
    """Return the plot of some lines, each with its points."""
    everything = [point for points in lines.values() for point in points]
    frame = _Frame(everything)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        "<style>text {font: 12px sans-serif} .title {font: bold 15px sans-serif}</style>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="22" class="title">{escape(title)}</text>',
        *frame.axes(),
    ]
    for number, (name, points) in enumerate(lines.items()):
        colour = _COLOURS.get(name, "#000000")
        kept = front(points)
        if len(kept) > 1:
            path = " ".join(f"{frame.x(point.gpu_hours):.1f},{frame.y(point.attainment):.1f}" for point in kept)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for point in points:
            told = f"{name} {point.label}: {100 * point.attainment:.2f} %, {point.gpu_hours:.0f} GPU-hours"
            parts.append(
                f'<circle cx="{frame.x(point.gpu_hours):.1f}" cy="{frame.y(point.attainment):.1f}" r="4" '
                f'fill="{colour}"><title>{escape(told)}</title></circle>'
            )
        y = _TOP + 14 + 20 * number
        parts.append(f'<circle cx="{_WIDTH - _RIGHT + 20}" cy="{y - 4}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{_WIDTH - _RIGHT + 30}" y="{y}">{escape(name.replace("_", " "))}</text>')
    return "\n".join([*parts, "</svg>", ""])


class _Frame:
    """The mapping of values to places, with round ends."""

    def __init__(self, points: Sequence[Point]) -> None:
        costs = [point.gpu_hours for point in points] or [0.0, 1.0]
        reached = [100 * point.attainment for point in points] or [0.0, 100.0]
        self._cost_step = _step(max(costs) - min(costs) * 0.9)
        self._low = self._cost_step * math.floor(0.95 * min(costs) / self._cost_step)
        self._high = max(self._cost_step * math.ceil(1.02 * max(costs) / self._cost_step), self._low + self._cost_step)
        self._share_step = _step(max(100.0 - min(reached), 1.0))
        self._floor = self._share_step * math.floor((min(reached) - 0.01) / self._share_step)

    def x(self, gpu_hours: float) -> float:
        return _LEFT + (gpu_hours - self._low) / (self._high - self._low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, attainment: float) -> float:
        share = (100 * attainment - self._floor) / (100.0 - self._floor)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    def axes(self) -> list[str]:
        parts = []
        bottom = _HEIGHT - _BOTTOM
        for number in range(round((self._high - self._low) / self._cost_step) + 1):
            value = self._low + number * self._cost_step
            x = self.x(value)
            parts.append(f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}" stroke="#e4e4e4"/>')
            parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{value:g}</text>')
        for number in range(round((100.0 - self._floor) / self._share_step) + 1):
            value = self._floor + number * self._share_step
            y = self.y(value / 100)
            parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}" stroke="#e4e4e4"/>')
            parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 12}" text-anchor="middle">GPU-hours</text>')
        parts.append(f'<text x="{_LEFT}" y="{_TOP - 6}" fill="#444">requests within the objectives, %</text>')
        return parts


def _step(extent: float) -> float:
    """Return a round step that gives about five of them."""
    rough = max(extent, 1e-6) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
