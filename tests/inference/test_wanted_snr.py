"""Generated glitches of a wanted SNR, from changed witnesses, and the bank that others inject from."""

import numpy as np
import pytest
import torch
from torch import nn

from glitchflow_plugin.data.glitch_bank import read_glitch_bank
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.errors import ChannelMismatchError, ConfigurationError
from glitchflow_plugin.inference.asked import ask
from glitchflow_plugin.inference.generate import UNREACHED, GenerateSettings, generate_glitches
from glitchflow_plugin.inference.generated_bank import middle_of, write_banks
from glitchflow_plugin.inference.wanted_snr import by_drive, by_waveform, drawn_snr
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.models.twins import WaveformTwin
from glitchflow_plugin.preprocessing.spectrograms import make_spectrograms
from glitchflow_plugin.signal.intervention import Intervention
from glitchflow_plugin.signal.qtransform import QTransformSettings

RATE, SIZE = 1024.0, 4096
TRANSFORM = QTransformSettings(q=8.0, frequency_low=20.0, frequency_high=350.0, num_frequencies=64, num_times=64)


class Law(nn.Module):
    """What a witness shows above three times its noise, to some power; the sum of both witnesses."""

    def __init__(self, power):
        super().__init__()
        self.power = power

    def forward(self, witnesses):
        above = witnesses.sign() * (witnesses.abs() - 4).clamp(min=0)
        return 0.5 * (above * above.abs() ** (self.power - 1)).sum(dim=1, keepdim=True)

    def contributions(self, witnesses):
        return torch.cat([self(witnesses[:, place : place + 1]) for place in range(2)], dim=1)


@pytest.fixture
def make_case(make_event_set, tmp_path):
    """Four events: a glitch in the first witness, two in the second, none."""

    def make(power=1):
        generator = np.random.default_rng(4)
        series = generator.standard_normal((4, 3, SIZE)).clip(-3.9, 3.9)
        time = np.arange(SIZE) / RATE
        for event, (row, centre) in enumerate([(1, 1.2), (2, 2.0), (2, 3.0)]):
            series[event, row] += 20 * np.exp(-0.5 * ((time - centre) / 0.02) ** 2) * np.sin(2 * np.pi * 90 * time)
        events = make_event_set(
            series, channels=("V1:STRAIN", "V1:A", "V1:B"), recipe={"sample_rate": RATE, "duration": 4.0}
        )
        maps = make_spectrograms(events, ["V1:A", "V1:B"], TRANSFORM, tmp_path / "maps", device="cpu")
        bundle = ModelBundle(
            twin=WaveformTwin(Law(power)).eval(),
            target="V1:STRAIN",
            witnesses=("V1:A", "V1:B"),
            recipe=maps.recipe,
            window_size=64,
            frequencies=tuple(maps.frequencies),
            times=tuple(maps.times),
            model={"name": "wiener"},
        )
        return bundle, maps, events

    return make


def generate(case, folder, **settings):
    bundle, maps, events = case
    chosen = GenerateSettings(batch_events=3, **settings)
    return generate_glitches(bundle, maps, folder, chosen, events=events, progress=False)


@pytest.mark.parametrize("scale", ["drive", "waveform"])
def test_glitches_have_the_wanted_snr_and_the_rest_is_left_out_with_a_reason(make_case, tmp_path, scale):
    made = generate(make_case(), tmp_path / "made", snr=(20.0, 30.0), scale=scale, keep_witnesses=True)
    assert list(made.spectrograms.manifest.rejected.items()) == [("event-003", UNREACHED)]
    labels = made.labels
    assert labels["witness"].tolist() == ["V1:A", "V1:B", "V1:B"]
    np.testing.assert_allclose(labels["snr"], labels["wanted_snr"], rtol=0.02)
    assert labels["wanted_snr"].between(20, 30).all()
    stored = made.strain.read().series[:, 0]
    np.testing.assert_allclose(np.sqrt((stored**2).sum(axis=1)), labels["snr"], rtol=1e-5)
    np.testing.assert_array_equal(made.strain.gps_start, made.spectrograms.gps_start)
    assert made.strain.recipe["generated"]["scale"] == scale
    peak_column = labels["peak_gps"] - made.spectrograms.gps_start
    np.testing.assert_allclose(peak_column, [1.2, 2.0, 3.0], atol=0.08)
    # another run draws the same
    again = generate(make_case(), tmp_path / "again", snr=(20.0, 30.0), scale=scale)
    np.testing.assert_array_equal(again.strain.read().series, made.strain.read().series)


def test_a_drive_goes_through_the_law_and_a_waveform_does_not(make_case, tmp_path):
    """Above a threshold a louder cause has another shape; a scaled waveform keeps its own."""
    bundle, maps, events = make_case()
    plain = generate((bundle, maps, events), tmp_path / "plain").strain.read().series[:3, 0]
    shapes = {}
    for scale in ("drive", "waveform"):
        made = generate((bundle, maps, events), tmp_path / scale, snr=(150.0, 150.1), scale=scale)
        shapes[scale] = made.strain.read().series[:, 0]
        overlap = (shapes[scale] * plain).sum(1) / np.linalg.norm(shapes[scale], axis=1) / np.linalg.norm(plain, axis=1)
        assert (overlap > 0.99999).all() == (scale == "waveform")
    # what arrives is the law of the witness times the factor
    factor = made.labels["factor"]
    assert (factor > 1).all()


def test_drives_scale_witnesses_while_the_prediction_lasts(make_case):
    bundle, maps, events = make_case(power=2)
    asked = ask(bundle, bundle.twin, maps, events)
    seen = asked.read([0, 1, 2])
    wanted = asked.snr(asked.answer(seen)).double().numpy() * 1.5
    found = by_drive(asked, seen, wanted)
    np.testing.assert_allclose(asked.snr(found.answer), wanted, rtol=0.01)
    assert (found.factor > 1).all()
    assert (found.factor < 1.5).all()  # the square of it, and more
    ratio = (found.seen / seen)[0, 0]
    assert ratio[round(1.2 * RATE)] == pytest.approx(found.factor[0], rel=1e-3)
    assert torch.equal(found.seen[1:, 0], seen[1:, 0])  # what brings nothing is not made louder
    torch.testing.assert_close(ratio[: round(0.8 * RATE)], torch.ones(round(0.8 * RATE)))
    held = by_drive(asked, seen, wanted, steady=("V1:B",))
    torch.testing.assert_close(held.seen[:, 1], seen[:, 1])
    assert np.isnan(held.factor).tolist() == [False, True, True]  # nothing else could make them louder
    nothing = by_waveform(asked, torch.zeros_like(seen), wanted)
    assert np.isnan(nothing.factor).all()
    assert not nothing.answer.any()


def test_changed_witnesses_make_other_glitches(make_case, tmp_path):
    case = make_case()
    silent = generate(
        case, tmp_path / "silent", interventions=(Intervention(("V1:B",), "silence"),), keep_witnesses=True
    )
    assert silent.labels["label"].tolist() == ["glitch", "background", "background", "background"]
    assert silent.labels["snr"].tolist()[1:] == [0.0, 0.0, 0.0]
    stored = silent.spectrograms.read()
    assert not stored.maps[:, 2].any()
    assert stored.valid[:, 2].tolist() == [False] * 4
    np.testing.assert_allclose(stored.maps[:, 1], case[1].read(channels=["V1:A"]).maps[:, 0], rtol=1e-3, atol=1e-3)
    with pytest.raises(ChannelMismatchError, match="Nearest: V1:A"):
        generate(case, tmp_path / "wrong", interventions=(Intervention(("V1:AA",), "silence"),))
    assert not (tmp_path / "wrong").exists()
    with pytest.raises(ConfigurationError, match="above 0"):
        GenerateSettings(snr=(0.0, 5.0))


def test_a_bank_of_generated_glitches_is_read_as_one_of_measured_ones(make_case, tmp_path):
    made = generate(make_case(), tmp_path, snr=(20.0, 40.0))
    paths = write_banks(made, tmp_path, classes={"event-000": "light modulation"}, bank_size=2)
    assert [path.name for path in paths] == ["bank.h5", "bank-2.h5"]
    glitches = [one for path in paths for one in read_glitch_bank(path)]
    assert {one.name for one in glitches} == {"V1/light_modulation/0", "V1/B/0", "V1/B/1"}
    by_name = {one.name: one for one in glitches}
    first = by_name["V1/light_modulation/0"]
    wanted = made.labels["snr"][0]
    assert first.snr == pytest.approx(wanted, rel=1e-3)
    assert first.listed_snr == pytest.approx(wanted, rel=1e-5)
    strain = EventSet.open(made.strain.folder).read([0]).series[0, 0]
    np.testing.assert_allclose(first.waveform, middle_of(strain, 2048), rtol=1e-3, atol=1e-3)
    assert by_name["V1/B/1"].snr == pytest.approx(made.labels["snr"][2], rel=1e-3)
    # fewer glitches the next time: no file of before stays behind
    assert [path.name for path in write_banks(made, tmp_path, classes={}, bank_size=5)] == ["bank.h5"]
    assert sorted(path.name for path in tmp_path.glob("bank*")) == ["bank.h5"]


def test_wanted_snr_are_even_in_the_logarithm_and_each_event_has_its_own():
    names = [f"event-{number}" for number in range(2000)]
    drawn = drawn_snr(names, (5.0, 80.0), 0)
    assert np.quantile(np.log(drawn), [0.25, 0.5, 0.75]) == pytest.approx(np.log([10.0, 20.0, 40.0]), abs=0.1)
    np.testing.assert_array_equal(drawn_snr(names[7:9], (5.0, 80.0), 0), drawn[7:9])
    assert not np.array_equal(drawn_snr(names[:1], (5.0, 80.0), 1), drawn[:1])
