"""The page as a reader sees it, in a real browser."""

import pytest
from tests.report.conftest import flaws, tables

from glitchflow_plugin.report.run import write_report

pytest.importorskip("bokeh")
pytest.importorskip("itables")


def column(page, number):
    return page.locator(f"#table-events tbody tr td:nth-child({number})").all_inner_texts()


def filtered(page):
    """Return once the table shows what was asked for: it is drawn after the browser has told of the keys."""
    page.locator("#events .dt-info", has_text="filtered").wait_for()


def test_a_reader_sorts_filters_and_follows_a_time_to_its_scans(visit, page_file):
    page = visit(page_file)
    assert flaws(page) == []
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.locator("#chart-timeline canvas").count() > 0
    headings = page.locator("#table-events_wrapper thead th")
    heading = headings.filter(has_text="measured")
    number = 1 + headings.all_inner_texts().index(heading.inner_text())
    for order in ("ascending", "descending"):
        heading.click()
        page.locator(f"#table-events_wrapper thead th[aria-sort={order}]").filter(has_text="measured").wait_for()
    loudness = [float(text) for text in column(page, number)]
    assert loudness == sorted(loudness, reverse=True)
    page.locator("#events tfoot input[placeholder='outcome']").press_sequentially("quiet")
    filtered(page)
    assert set(column(page, 3)) == {"quiet"}
    page.locator("#events tfoot input[placeholder='outcome']").press("Control+a")
    page.keyboard.press("Delete")
    assert page.locator(".event:visible").count() == 0
    link = page.locator("#table-events tbody a").first
    link.focus()
    page.keyboard.press("Enter")
    shown = page.locator(".event:visible")
    assert shown.count() == 1
    assert link.inner_text() in shown.locator("h2").inner_text()
    assert flaws(page) == []
    shown.get_by_text("Back to the table").click()
    assert page.locator(".event:visible").count() == 0


def test_a_phone_shows_all_of_it(visit, page_file):
    page = visit(page_file, 390, "#event-2")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    boxes = [one.bounding_box() for one in page.locator(".event:visible .panels > svg").all()]
    assert len(boxes) == 15
    assert all(box["width"] > 250 and box["x"] + box["width"] <= 390 for box in boxes)


def test_ten_thousand_events_can_be_searched(visit, tmp_path, run):
    tables(tmp_path, 10_000)
    (tmp_path / "summary.json").write_text((run / "summary.json").read_text())
    file = write_report(tmp_path)
    assert file.stat().st_size < 10e6
    page = visit(file)
    assert "10,000" in page.locator("#events .dt-info").inner_text()
    page.locator("#events input[type=search]").first.fill("1400639939")
    filtered(page)
    assert column(page, 1) == ["1400639939.250"]
