"""Generated parts of pages that people write."""

from pathlib import Path

from glitchflow_plugin.data.files import atomic_path
from glitchflow_plugin.errors import FormatError


def insert_block(page: Path | str, kind: str, name: str, block: str) -> None:
    """Put a block between the lines `<!-- KIND:begin NAME -->` and `<!-- KIND:end NAME -->`, in place of what is there.

    Args:
        page: A Markdown file.
        kind: Kind of the block, for instance `leaderboard`.
        name: Which of them.
        block: Markdown.

    Raises:
        FormatError: The page is missing, or has not each marker once and in order.
    """
    page = Path(page)
    begin, end = f"<!-- {kind}:begin {name} -->", f"<!-- {kind}:end {name} -->"
    if not page.exists():
        raise FormatError(f"{page} does not exist. Correct the path, or leave it null.")
    text = page.read_text(encoding="utf-8")
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise FormatError(f"{page}: expected the lines {begin} and {end} once each, in this order. Put them in.")
    head, tail = text[: text.index(begin) + len(begin)], text[text.index(end) :]
    with atomic_path(page) as temporary:
        temporary.write_text(f"{head}\n{block.strip()}\n{tail}", encoding="utf-8")
