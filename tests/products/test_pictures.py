import pytest

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.products.pictures import PictureSettings
from glitchflow_plugin.settings import built


@pytest.mark.parametrize("wrong", [{"frequency_axis": "logarithmic"}, {"labels": "labels.csv"}, {"labels": [3]}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigurationError, match=r"^pictures\."):
        built(PictureSettings, wrong, "pictures")


def test_classes_are_words_and_their_lack_is_no_failure(tmp_path, caplog):
    table = tmp_path / "labels.csv"
    table.write_text("event_id,label\na,scattered_light\n")
    assert PictureSettings(labels=[str(table)]).classes() == {"a": "scattered light"}
    table.write_text("nonsense\n")
    assert PictureSettings(labels=[str(table)]).classes() == {}
    assert "labels.csv" in caplog.text
