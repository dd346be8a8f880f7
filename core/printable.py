"""Texts that somebody else chose, on a line for people."""


def printable(text: str) -> str:
    """Without line breaks and terminals' escape sequences: what is not printable is escaped as in a
    Python string.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
