"""The divergence of candidates by another figure, as inline SVG without any script."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence

from edgeagent.optimize.search import SearchResult
from edgeagent.optimize.targets import Measured, pareto

_WIDTH, _HEIGHT, _MARGIN = 760, 420, 56
_FONT, _CHAR = 12, 6.6  # the height of a line of a label, and the width of a character
# Divergences span decades, and none is drawn below this.
LEAST_KLD = 1e-5
# Where a label may stand beside its point, by the shift of its line; without room it is left out.
_SHIFTS = (-6, 12, -18, 24, -30, 36)


def plot(
    result: SearchResult,
    label: str,
    x_of: Callable[[Measured], float],
    x_target: float | None = None,
    max_kld: float | None = None,
) -> str:
    """The Pareto front is filled, the chosen candidate has a ring, targets are dashed lines. Divergence is on
    a logarithmic scale. The name of a point is its tooltip, and its label where there is room for it."""
    points = [(x_of(one), max(LEAST_KLD, one.kld), one) for one in result.measured]
    if not points:
        return ""
    xs = [x for x, _, _ in points] + ([x_target] if x_target else [])
    ys = [math.log10(y) for _, y, _ in points] + ([math.log10(max_kld)] if max_kld else [])
    (x_low, x_high), (y_low, y_high) = _range(xs), _range(ys)
    left, right, top, bottom = _MARGIN, _WIDTH - _MARGIN, _MARGIN / 2, _HEIGHT - _MARGIN

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + (x - x_low) / (x_high - x_low) * (right - left),
            bottom - (math.log10(y) - y_low) / (y_high - y_low) * (bottom - top),
        )

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" font-size="{_FONT}" font-family="system-ui">',
        f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="currentColor"/>',
        _text((left + right) / 2, _HEIGHT - 14, label, "middle"),
        _text(left, top - 10, "mean KL divergence, nats", "start"),
    ]
    for x in ticks(x_low, x_high):
        at, _ = place(x, points[0][1])
        parts.append(_text(at, bottom + 18, f"{x:g}", "middle"))
    for y in decades(y_low, y_high):
        _, at = place(points[0][0], y)
        parts.append(f'<path d="M{left} {at:.1f}H{right}" stroke="currentColor" opacity=".12"/>')
        parts.append(_text(left - 6, at + 4, f"{y:g}", "end"))
    dashed = 'fill="none" stroke="#c43" stroke-dasharray="5 4"'
    if x_target:
        at, _ = place(x_target, points[0][1])
        parts.append(f'<path d="M{at:.1f} {top}V{bottom}" {dashed}/>')
    if max_kld:
        _, at = place(points[0][0], max_kld)
        parts.append(f'<path d="M{left} {at:.1f}H{right}" {dashed}/>')
    return "".join(
        [*parts, *_points(result, [(*place(x, y), one) for x, y, one in points]), "</svg>"]
    )


def _points(result: SearchResult, placed: Sequence[tuple[float, float, Measured]]) -> list[str]:
    """Circles, then labels, the chosen and the Pareto front first."""
    front = {one.name for one in pareto(result.measured)}
    parts = []
    taken = [(x - 6, x + 6, y - 6, y + 6) for x, y, _ in placed]
    for x, y, one in sorted(
        placed, key=lambda p: (p[2] != result.chosen, p[2].name not in front, p[2].name)
    ):
        fill = "#1668b8" if one.name in front else "none"
        title = f"<title>{html.escape(one.name)}</title>"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="#1668b8">{title}</circle>'
        )
        if one == result.chosen:
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="8" fill="none" stroke="#c43"/>')
        width = _CHAR * len(one.name)
        for shift in _SHIFTS:
            start = x + 9 if x + 9 + width < _WIDTH else x - 9 - width
            box = (start, start + width, y + shift - _FONT, y + shift)
            if not any(_overlap(box, other) for other in taken):
                taken.append(box)
                parts.append(_text(start, y + shift, one.name, "start"))
                break
    return parts


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def ticks(low: float, high: float) -> list[float]:
    """Four to nine round numbers between two."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(n for n in (5, 2, 1) if (high - low) / (n * step) >= 4)
    first = math.ceil(low / step)
    return [n * step for n in range(first, math.floor(high / step) + 1)]


def decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two logarithms; only the powers where there are many."""
    found = [
        n * 10.0**power
        for power in range(math.floor(low), math.ceil(high) + 1)
        for n in (1, 2, 5)
        if low <= math.log10(n) + power <= high
    ]
    powers = [y for y in found if abs(math.log10(y) - round(math.log10(y))) < 1e-9]
    return powers if len(found) > 10 and len(powers) > 2 else found


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Bounds of an axis with some room around the values."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room
