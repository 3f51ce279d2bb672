import numpy as np
import pytest

from glitchflow_plugin.errors import ChannelMismatchError, ConfigurationError, NoEventsError
from glitchflow_plugin.inference.generate import BACKGROUND, GLITCH, GenerateSettings, generate_glitches


def generate(bundle, spectrograms, tmp_path, **settings):
    chosen = GenerateSettings(batch_events=3, **settings)
    model = {"name": "m", "version": 2}
    return generate_glitches(bundle, spectrograms, tmp_path / "synthetic", chosen, model=model, progress=False)


def test_generated_strain_comes_from_the_witnesses_alone(make_bundle, make_set, tmp_path):
    spectrograms = make_set()
    made = generate(make_bundle(), spectrograms, tmp_path)
    source = spectrograms.read()
    stored = made.spectrograms.read()
    assert made.spectrograms.channels == ("V1:STRAIN",)
    assert stored.event_ids == source.event_ids
    np.testing.assert_allclose(stored.maps[:, 0], 0.9 * source.maps[:, 1], rtol=1e-6)
    assert made.spectrograms.recipe["generated"]["model"] == {"name": "m", "version": 2}
    assert made.spectrograms.recipe["qtransform"] == spectrograms.recipe["qtransform"]


def test_only_loud_predictions_are_labelled_glitches(make_bundle, make_set, tmp_path):
    spectrograms = make_set()
    labels = generate(make_bundle(), spectrograms, tmp_path).labels
    assert labels["event_id"].tolist() == list(spectrograms.event_ids)
    assert labels["label"].tolist() == [GLITCH, BACKGROUND] * 5
    assert labels["gps_start"].dtype == np.float64
    row = labels.iloc[4]  # 60 + 10 * 4 in the witness, first at column 22 + 14 * 4, rows 14 to 16
    assert row["peak_snr2"] == pytest.approx(90)
    assert row["peak_gps"] == pytest.approx(spectrograms.gps_start[4] + spectrograms.times[78])
    assert row["peak_frequency"] == pytest.approx(spectrograms.frequencies[14])


def test_background_can_be_left_out_and_witnesses_kept(make_bundle, make_set, tmp_path):
    spectrograms = make_set(groups=[f"wave {row % 3}" for row in range(10)])
    made = generate(make_bundle(), spectrograms, tmp_path, only_glitches=True, keep_witnesses=True)
    assert made.spectrograms.event_ids == spectrograms.event_ids[::2]
    assert made.spectrograms.groups == spectrograms.groups[::2]
    assert len(made.spectrograms.manifest.rejected) == 5
    assert made.spectrograms.channels == ("V1:STRAIN", "V1:SEIS", "V1:MIC")
    np.testing.assert_array_equal(made.spectrograms.read().maps[:, 1:], spectrograms.read().maps[::2, 1:3])
    with pytest.raises(NoEventsError, match="not above the threshold"):
        generate(make_bundle(), spectrograms, tmp_path, only_glitches=True, threshold=1e5)


def test_blind_events_are_rejected_and_strain_is_not_needed(make_bundle, make_set, tmp_path):
    valid = np.ones((4, 2), bool)
    valid[1] = False
    spectrograms = make_set(4, channels=("V1:SEIS", "V1:MIC"), valid=valid)
    made = generate(make_bundle(), spectrograms, tmp_path)
    assert list(made.spectrograms.manifest.rejected.values()) == ["no valid witness"]
    assert len(made.labels) == 3


def test_wrong_data_and_settings_are_refused(make_bundle, make_set, tmp_path):
    with pytest.raises(ChannelMismatchError):
        generate(make_bundle(), make_set(2, channels=("V1:STRAIN", "V1:SEIS")), tmp_path)
    with pytest.raises(ConfigurationError, match="without quotes"):
        GenerateSettings(only_glitches="False")
    with pytest.raises(ConfigurationError):
        GenerateSettings(batch_events=0)
