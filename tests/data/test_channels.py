import pytest

from glitchflow_plugin.data.channels import ChannelSelection, read_channel_list, select_channels
from glitchflow_plugin.errors import ConfigurationError, FormatError

NAMES = ["V1:STRAIN", "V1:ENV_MIC_1", "V1:ENV_MIC_2", "V1:SUS_X", "V1:LSC_A"]


def test_all_by_default_sorted_with_the_target_first():
    assert select_channels(NAMES, "V1:STRAIN") == (
        "V1:STRAIN",
        "V1:ENV_MIC_1",
        "V1:ENV_MIC_2",
        "V1:LSC_A",
        "V1:SUS_X",
    )


def test_patterns_and_range_do_not_touch_the_target():
    chosen = ChannelSelection(include=("V1:ENV_*", "V1:SUS_*"), exclude=("*_1",))
    assert select_channels(NAMES, "V1:STRAIN", None, chosen) == ("V1:STRAIN", "V1:ENV_MIC_2", "V1:SUS_X")
    assert select_channels(NAMES, "V1:STRAIN", None, ChannelSelection(min=1, max=3)) == (
        "V1:STRAIN",
        "V1:ENV_MIC_2",
        "V1:LSC_A",
    )
    assert ChannelSelection(include="V1:*").include == ("V1:*",)


def test_a_list_keeps_its_order_and_absent_names(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("# selected by the scan\nV1:SUS_X\n\nV1:GONE 1024  # no longer recorded\nV1:SUS_X\nV1:LSC_A\n")
    names = read_channel_list(str(path))
    assert names == ("V1:SUS_X", "V1:GONE", "V1:LSC_A")
    assert select_channels(NAMES, "V1:STRAIN", names) == ("V1:STRAIN", "V1:SUS_X", "V1:GONE", "V1:LSC_A")
    assert read_channel_list(["a", "b", "a"]) == ("a", "b")
    assert read_channel_list(None) is None


def test_mistakes_are_explained(tmp_path):
    with pytest.raises(ConfigurationError, match="V1:ENV_MIC"):
        select_channels(NAMES, "V1:STRAIN", None, ChannelSelection(include=("V1:ENV_MICX_*",)))
    with pytest.raises(ConfigurationError, match="is no file"):
        read_channel_list("nowhere.txt")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(ConfigurationError, match="no channel"):
        read_channel_list(tmp_path / "empty.txt")
    with pytest.raises(TypeError):
        ChannelSelection(includes=("x",))


def test_a_data_set_without_the_target_gives_its_witnesses():
    assert select_channels(["V1:A"], "V1:STRAIN") == ("V1:A",)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path, encoding):
    path = tmp_path / "list.txt"
    path.write_text("V1:A\r\nV1:B\r\n", encoding=encoding)
    assert read_channel_list(path) == ("V1:A", "V1:B")
    path.write_bytes(b"V1:\xe9\n")
    with pytest.raises(FormatError, match="UTF-8"):
        read_channel_list(path)
    with pytest.raises(ConfigurationError, match="list of channel names"):
        read_channel_list(5)  # type: ignore[arg-type]
