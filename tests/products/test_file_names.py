import pytest

from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.products.file_names import file_name


def test_the_span_in_a_name_holds_the_data():
    assert file_name("H1", "GLF_VETO_1", 1264625000.75, 1264625006.25, ".xml") == "H1-GLF_VETO_1-1264625000-7.xml"
    assert file_name("HL", "X", 0, 1e-3, "") == "HL-X-0-1"


@pytest.mark.parametrize(
    "wrong", [("h", "X", 0, 1), ("H", "X-Y", 0, 1), ("H", "", 0, 1), ("H", "X", 2, 2), ("H", "X", -1, 2)]
)
def test_a_name_that_could_be_read_in_two_ways_is_refused(wrong):
    with pytest.raises(FormatError, match="expected a source"):
        file_name(*wrong, ".h5")
