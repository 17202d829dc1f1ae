"""A smoother and a line through points."""

import math

from settings import DEFAULT, ROUND


class Model:
    """What all models share."""

    kind = "model"
    tolerance = 1e-9

    def __init__(self, depth=1, *, scale=1.0):
        self.depth = depth
        self.scale = scale
        self.notes = []

    def fit(self, values):
        raise NotImplementedError

    @staticmethod
    def mean(values):
        return sum(values) / len(values) if values else 0.0

    @classmethod
    def describe(cls):
        return cls.kind.upper()


class Line(Model):
    """Least squares."""

    kind = "line"

    def fit(self, values):
        places = [place * self.scale for place in range(len(values))]
        middle, level = self.mean(places), self.mean(values)
        spread = sum((place - middle) ** 2 for place in places)
        if spread < self.tolerance:
            self.notes.append("flat")
            return 0.0, level
        slope = sum((place - middle) * (value - level) for place, value in zip(places, values)) / spread
        return round(slope, ROUND), round(level - slope * middle, ROUND)


class Smooth(Line):
    """A line through what a window has smoothed."""

    kind = "smooth"

    def fit(self, values):
        for _ in range(self.depth):
            values = smooth(values)
        slope, level = super().fit(values)
        return slope, level, math.floor(level)


def smooth(values, window=DEFAULT):
    """Weigh each value with its neighbours."""
    out = []
    for place, value in enumerate(values):
        if window.covers(place, len(values)):
            near = values[place - window.half : place + window.half + 1]
            value = sum(weight * one for weight, one in zip(window.weights, near))
        out.append(value)
    return out


class _SpareModel(Model):
    """Nobody asks for it."""

    kind = "spare"

    def fit(self, values):
        return max(values) - min(values) if len(values) > 2 else None
