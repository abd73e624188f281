"""How a person is told numbers and durations, on the pages and on the command line."""


def count(number: int, one: str, many: str = "") -> str:
    """A number with its noun: "1 tap", "12 taps", and "3 entries" where the plural is given."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def span(duration_ms: int) -> str:
    """A duration in its largest whole unit: "40 s", "12 min", "3 h", "2 days"."""
    seconds = max(0, duration_ms) // 1000
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h"
    return f"{seconds // 86400} days"
