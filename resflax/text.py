"""Texts for people to read that several packages need: one-line messages and durations."""


def one_line(text: object, longest: int = 200) -> str:
    """The text of an error or another object on one line, cut after `longest` characters."""
    return " ".join(str(text).split())[:longest]


def duration(seconds: float) -> str:
    """Seconds as `m:ss`, or `h:mm:ss` from one hour on, rounded to whole seconds."""
    minutes, whole_seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{whole_seconds:02d}"
    return f"{minutes}:{whole_seconds:02d}"
