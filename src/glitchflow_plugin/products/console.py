"""Output that never ends a run: what a terminal or log cannot show is replaced by what resembles it."""

import codecs
import io
import sys
import unicodedata

_ERRORS = "glitchflow.resemble"
#: Corners and crossings of tables are looked for by their names; these have none that helps.
_LIKE = {"│": "|", "┃": "|", "║": "|", "─": "-", "━": "-", "═": "-", "–": "-", "—": "-", "×": "x", "±": "+-", "µ": "u"}


def never_fail_on_output() -> None:
    """Let the standard output of this process show in ASCII what its encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        # strict is what fails; whoever has chosen something else keeps it
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors=_ERRORS)


def resemble(text: str) -> str:
    """ASCII that looks like a text.

    >>> resemble("┏━┓ SNR² 0…1")
    '+-+ SNR2 0...1'
    """
    return "".join(_resembling(character) for character in text)


def _resembling(character: str) -> str:
    if character.isascii():
        return character
    if character in _LIKE:
        return _LIKE[character]
    if unicodedata.name(character, "").startswith("BOX DRAWINGS"):
        return "+"
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return plain or "?"


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return resemble(error.object[error.start : error.end]), error.end


codecs.register_error(_ERRORS, _replaced)
