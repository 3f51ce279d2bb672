import pytest

from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.products.page import insert_block

PAGE = """# Results
<!-- board:begin a -->
old
<!-- board:end a -->
between
<!-- board:begin b -->
<!-- board:end b -->
"""


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(PAGE, encoding="utf-8")
    return path


def test_a_block_replaces_what_is_between_its_markers_and_nothing_else(page):
    insert_block(page, "board", "a", "| new |\n")
    assert page.read_text(encoding="utf-8") == PAGE.replace("old", "| new |")
    once = page.read_text(encoding="utf-8")
    insert_block(page, "board", "a", "| new |")
    assert page.read_text(encoding="utf-8") == once
    insert_block(page, "board", "b", "other")
    assert page.read_text(encoding="utf-8") == once.replace("begin b -->\n", "begin b -->\nother\n")


@pytest.mark.parametrize("name", ["c", "a -->\n<!-- board:end a"])
def test_a_page_without_the_markers_is_left_alone(page, name):
    with pytest.raises(FormatError, match="Put them in"):
        insert_block(page, "board", name, "new")
    assert page.read_text(encoding="utf-8") == PAGE


def test_markers_in_the_wrong_order_and_missing_pages_are_named(page, tmp_path):
    page.write_text("<!-- board:end a -->\n<!-- board:begin a -->\n", encoding="utf-8")
    with pytest.raises(FormatError, match="in this order"):
        insert_block(page, "board", "a", "new")
    with pytest.raises(FormatError, match="does not exist"):
        insert_block(tmp_path / "none.md", "board", "a", "new")
