"""Texts for people to read that several packages need: one-line messages, paths, durations."""

import os
import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def one_line(text: object, longest: int = 200) -> str:
    """The text of an error or another object on one line, cut after `longest` characters."""
    return " ".join(str(text).split())[:longest]


def path_text(path: str | os.PathLike[str]) -> str:
    r"""A path as one line that can be printed and stored in UTF-8, whatever its bytes are.

    Bytes that are not UTF-8 become `\xe9`, and control characters become `\n` or the like.
    """
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def duration(seconds: float) -> str:
    """Seconds as `m:ss`, or `h:mm:ss` from one hour on, rounded to whole seconds."""
    minutes, whole_seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{whole_seconds:02d}"
    return f"{minutes}:{whole_seconds:02d}"
