import pytest

from glitchflow_plugin.errors import FormatError
from glitchflow_plugin.products.file_names import channel_word, file_name, ifo_of


def test_the_span_in_a_name_holds_the_data():
    assert file_name("H1", "GLF_VETO_1", 1264625000.75, 1264625006.25, ".xml") == "H1-GLF_VETO_1-1264625000-7.xml"
    assert file_name("HL", "X", 0, 1e-3, "") == "HL-X-0-1"


@pytest.mark.parametrize(
    "wrong", [("h", "X", 0, 1), ("H", "X-Y", 0, 1), ("H", "", 0, 1), ("H", "X", 2, 2), ("H", "X", -1, 2)]
)
def test_a_name_that_could_be_read_in_two_ways_is_refused(wrong):
    with pytest.raises(FormatError, match="expected a source"):
        file_name(*wrong, ".h5")


def test_words_of_a_channel_make_a_name_with_and_without_a_detector():
    for channel in ("V1:Hrec-hoft.x", "strain"):
        name = file_name(ifo_of(channel)[0], channel_word(channel), 1, 2, ".gwf")
        assert name in ("V-V1_HREC_HOFT_X-1-1.gwf", "X-STRAIN-1-1.gwf")
