"""What the other modules are set to."""

from dataclasses import dataclass, field

LIMITS = {"low": -50.0, "high": 60.0}
NAMES = ("station", "value", "flag")
MISSING = {"", "n/a", "-"}
ROUND = 4
OFFSET = -1.5
_spare_colour = "red"


@dataclass(frozen=True)
class Window:
    """A stretch of a series."""

    width: int = 3
    weights: tuple = (0.25, 0.5, 0.25)
    label: str = field(default="smooth", compare=False)

    @property
    def half(self):
        """How far it reaches to either side."""
        return self.width // 2

    def covers(self, place, length):
        """Whether it lies within a series."""
        return self.half <= place < length - self.half


DEFAULT = Window()


def _spare_theme(dark=False):
    """No one asks for it."""
    return ("black", _spare_colour) if dark else ("white", "blue")
