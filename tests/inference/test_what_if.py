"""Questions about changed witnesses, with networks whose answers are known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from tests._configuration import section
from torch import nn

from glitchflow_plugin.components.what_if import WhatIf
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.data.truth_file import EventTruth, Truth, WaveformTruth
from glitchflow_plugin.errors import ChannelMismatchError, ConfigurationError, NoEventsError
from glitchflow_plugin.inference.asked import ask
from glitchflow_plugin.inference.attribution import AttributionSettings, attribute, attribute_events
from glitchflow_plugin.inference.subject import Subject
from glitchflow_plugin.inference.transfer_map import TransferSettings, transfer_map
from glitchflow_plugin.inference.what_if import UNCHANGED, WhatIfSettings
from glitchflow_plugin.inference.what_if_report import what_if_details, what_if_metrics, write_what_if
from glitchflow_plugin.inference.what_if_run import Known, run_what_if
from glitchflow_plugin.models.bundle import ModelBundle
from glitchflow_plugin.models.twins import WaveformTwin
from glitchflow_plugin.models.wiener import WienerFilter
from glitchflow_plugin.preprocessing.spectrograms import make_spectrograms
from glitchflow_plugin.products.pictures import PictureSettings
from glitchflow_plugin.settings import built
from glitchflow_plugin.signal.intervention import Intervention
from glitchflow_plugin.signal.qtransform import QTransformSettings

RATE, SIZE = 1024.0, 1024
WITNESSES = ("A", "B", "C")
TRANSFORM = QTransformSettings(q=8.0, frequency_low=20.0, frequency_high=350.0, num_frequencies=64, num_times=64)
BARE = {"gains": (), "delays": (), "transfer": TransferSettings(channels=())}


class Together(nn.Module):
    """A product: each witness alone says nothing."""

    def forward(self, witnesses):
        return (witnesses[:, 0] * witnesses[:, 1])[:, None]


@pytest.fixture
def events(make_event_set):
    """Six events; the first witness has a glitch in each, the second in every other, and the third is missing once."""
    generator = np.random.default_rng(2)
    series = generator.standard_normal((6, 4, SIZE))
    time = np.arange(SIZE) / RATE
    for event in range(6):
        for row, frequency in ((1, 60.0), (2, 130.0)) if event % 2 == 0 else ((1, 60.0),):
            series[event, row] += 15 * np.exp(-0.5 * ((time - 0.5) / 0.02) ** 2) * np.sin(2 * np.pi * frequency * time)
    valid = np.ones((6, 4), bool)
    valid[5, 3] = False
    recipe = {"sample_rate": RATE, "duration": 1.0}
    return make_event_set(series, valid, channels=("STRAIN", *WITNESSES), recipe=recipe, groups=tuple("abcabc"))


@pytest.fixture
def make_subject(events, tmp_path):
    maps = make_spectrograms(events, WITNESSES, TRANSFORM, tmp_path / "maps", device="cpu")

    def make(network=None, name="wiener", **changes):
        if network is None:
            network = WienerFilter(3, filter_size=3)
            with torch.no_grad():
                network.filters[:2, 1] = torch.tensor([0.5, -0.25])
        twin = WaveformTwin(network).eval() if name == "wiener" else network
        bundle = ModelBundle(
            twin=twin,
            target="STRAIN",
            witnesses=WITNESSES,
            recipe=maps.recipe,
            window_size=64,
            frequencies=tuple(maps.frequencies),
            times=tuple(maps.times),
            model={"name": name},
            **changes,
        )
        return Subject(bundle, maps, events if name == "wiener" else None)

    return make


def asked_of(subject):
    return ask(subject.bundle, subject.bundle.twin, subject.spectrograms, subject.events, stride=32)


def test_a_linear_twin_answers_to_each_change_as_its_taps_say(make_subject, events):
    asked = asked_of(make_subject())
    measured = torch.from_numpy(events.read(channels=list(WITNESSES)).series)
    expected = 0.5 * measured[:, 0] - 0.25 * measured[:, 1]

    def answer(*changes, rows=range(6)):
        return asked.answer(asked.changed(list(rows), changes))

    torch.testing.assert_close(answer(), expected)
    torch.testing.assert_close(asked.snr(answer()), expected.norm(dim=1))
    torch.testing.assert_close(answer(Intervention("*", "scale", factor=-3.0)), -3 * expected)
    torch.testing.assert_close(answer(Intervention("B", "silence")), 0.5 * measured[:, 0])
    later = answer(Intervention("*", "delay", delay=20 / RATE))
    torch.testing.assert_close(later[:, 20:], expected[:, :-20], atol=1e-4, rtol=0)
    swapped = answer(Intervention("A", "swap", event="event-003"), Intervention("B", "silence"))
    torch.testing.assert_close(swapped, 0.5 * measured[3:4, 0].expand(6, -1))
    # one change after the other, and nobody's own group: of "abcabc" the next one
    both = answer(Intervention("A", "swap"), Intervention("A", "scale", factor=2.0), Intervention("B", "silence"))
    torch.testing.assert_close(both, measured[[1, 2, 3, 4, 5, 0], 0])
    noise = answer(Intervention("*", "noise"))
    assert noise.abs().max() < 3
    assert noise.std() == pytest.approx(np.hypot(0.5, 0.25), rel=0.1)
    torch.testing.assert_close(answer(Intervention("*", "noise"), rows=[4]), noise[4:5])


def test_a_missing_witness_stays_missing_unless_another_event_gives_its_own(make_subject):
    asked = asked_of(make_subject())
    for change in (
        Intervention("C", "noise"),
        Intervention("C", "scale", factor=2.0),
        Intervention("C", "delay", delay=0.1),
    ):
        assert not asked.changed([5], [change])[0, 2].any()
    assert asked.changed([5], [Intervention("C", "swap")])[0, 2].any()
    # the fifth event's next neighbour lacks it
    torch.testing.assert_close(asked.changed([4], [Intervention("C", "swap")])[0, 2], asked.read([0])[0, 2])


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"interventions": (Intervention("AA", "silence"),)}, ChannelMismatchError, r"'AA'.*Nearest: A"),
        ({"interventions": (Intervention("A", "delay", delay=-1.5),)}, ConfigurationError, "shorter than the event"),
        ({"delays": (2.0,)}, ConfigurationError, "shorter than the event"),
        ({"interventions": (Intervention("A", "swap", event="event-01"),)}, ConfigurationError, "Nearest: event-001"),
        ({"events": ("event-01",)}, ConfigurationError, "Nearest: event-001"),
        ({"transfer": TransferSettings(channels=("D*",))}, ChannelMismatchError, r"'D\*'"),
    ],
)
def test_what_cannot_be_asked_is_told_before_anything_is_written(make_subject, tmp_path, changes, error, said):
    with pytest.raises(error, match=said):
        run_what_if(make_subject(), tmp_path / "out", WhatIfSettings(**changes), Known(), progress=False)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigurationError, match="another name of a case"):
        WhatIfSettings(interventions=(Intervention("A", "silence", case=UNCHANGED),))


def test_a_witness_that_no_other_event_has_cannot_be_swapped(make_subject):
    asked = asked_of(make_subject())
    alone = replace(asked, spectrograms=asked.spectrograms)
    alone.spectrograms.__dict__["groups"] = ("one",) * 6
    with pytest.raises(NoEventsError, match="no other event could give its A"):
        alone.changed([0], [Intervention("A", "swap")])


def test_shares_of_a_sum_are_those_of_its_parts_and_of_removing_them(make_subject):
    asked = asked_of(make_subject())
    seen = asked.read([0])[0]
    found = attribute(asked, seen, AttributionSettings())
    parts, whole = torch.stack([0.5 * seen[0], -0.25 * seen[1], 0 * seen[2]]), 0.5 * seen[0] - 0.25 * seen[1]
    shares = (parts @ whole / whole.square().sum()).numpy()
    for got in (found.shapley, found.removal, found.contribution):
        np.testing.assert_allclose(got, shares, atol=1e-5)
    assert found.active == (0, 1)
    assert found.top == 0
    assert max(found.interaction, found.mismatch, abs(found.rest)) < 1e-9
    assert found.removed_snr[0] == pytest.approx(0.25 * float(seen[1].norm()), rel=1e-5)


def test_two_that_act_only_together_share_alike_and_the_interaction_is_told(make_subject):
    asked = asked_of(make_subject(Together()))
    found = attribute(asked, asked.read([0])[0], AttributionSettings())
    np.testing.assert_allclose(found.shapley, [0.5, 0.5, 0.0], atol=1e-6)
    # removing either takes all
    np.testing.assert_allclose(found.removal, [1.0, 1.0, 0.0], atol=1e-6)
    assert found.interaction == pytest.approx(1.0)
    assert np.isnan(found.mismatch)


def test_the_transfer_map_of_a_filter_is_its_response(make_subject):
    network = WienerFilter(3, filter_size=33)
    with torch.no_grad():
        network.filters[0, 16 + 9] = 0.4
        network.filters[1, 15:18] = torch.tensor([0.25, 0.5, 0.25])
    asked = asked_of(make_subject(network))
    settings = TransferSettings(channels=("A", "B"), frequencies=5, backgrounds=2)
    table = transfer_map(asked, [1, 3], settings)
    assert len(table) == 2 * 5 * 3
    delayed, smooth = (table[table["witness"] == name] for name in "AB")
    np.testing.assert_allclose(delayed["gain"], 0.4, rtol=0.01)
    np.testing.assert_allclose(delayed["delay"], 9 / RATE, atol=2e-4)
    np.testing.assert_allclose(smooth["gain"], np.cos(np.pi * smooth["frequency"] / RATE) ** 2, rtol=0.05)
    np.testing.assert_allclose(table["growth"], 1.0, atol=1e-3)
    assert (table["coherence"] > 0.95).all()
    assert (table["gain_deviation"] < 1e-4).all()


def truth_of(subject, witnesses):
    def event(name, start, seen):
        glitch = WaveformTruth("blip", start + 0.5, start, RATE, np.zeros(4), (start, start + 1), 20.0, seen)
        return EventTruth(name, start, start + 0.5, 1.0, glitches=(glitch,) if seen else ())

    maps = subject.spectrograms
    events = {
        name: event(name, float(start), seen)
        for name, start, seen in zip(maps.event_ids, maps.gps_start, witnesses, strict=True)
    }
    return Truth("STRAIN", RATE, {}, {}, events)


def test_a_run_keeps_what_it_was_asked_and_is_judged_by_the_truth(make_subject, events, tmp_path):
    subject = make_subject()
    # no glitch in the third event; the model does not know the witness of the fourth; the last one it gets wrong
    truth = truth_of(subject, [("A",), ("A",), (), ("OTHER",), ("A", "B"), ("B",)])
    changes = (Intervention("A", "silence", case="only B"), Intervention("*", "scale", factor=0.5))
    settings = WhatIfSettings(
        interventions=changes, gains=(0.0, 2.0), delays=(0.01,), sweep_events=1, batch_events=4, examples=1,
        transfer=TransferSettings(frequencies=2, backgrounds=1, amplitudes=(10.0, 20.0)),
    )  # fmt: skip
    out = tmp_path / "out"
    result, asked, warnings = run_what_if(subject, out, settings, Known(truth, ranking=("B", "A")), progress=False)
    assert warnings == ()
    assert result.answers.cases == (UNCHANGED, "only B", "* x 0.5")
    strain = EventSet.open(out / "strain")
    assert strain.channels == ("STRAIN", "only B", "* x 0.5")
    read = strain.read().series
    np.testing.assert_allclose(read[:, 2], 0.5 * read[:, 0], atol=1e-5)
    np.testing.assert_allclose(read[:, 1], -0.25 * events.read(channels=["B"]).series[:, 0], atol=1e-5)
    assert result.answers.maps.read().maps.shape == (6, 3, 64, 64)
    table = result.answers.table
    assert len(table) == 18
    half = table[table["case"] == "* x 0.5"]
    np.testing.assert_allclose(half["snr"], 0.5 * half["snr_unchanged"], rtol=1e-6)
    np.testing.assert_allclose(half["overlap"], 1.0, atol=1e-6)
    assert result.sweeps[result.sweeps["quantity"] == "gain"]["value"].tolist() == [0.0, 2.0] * 2
    judged = result.judged.table
    assert judged["twin"].tolist() == ["A"] * 4
    assert judged["twin_right"].tolist() == [True, True, True, False]
    assert set(judged["event_id"]) == {"event-000", "event-001", "event-004", "event-005"}
    assert what_if_metrics(result)["true_witness_share"].value == 0.75
    assert set(what_if_metrics(result)["true_witness_share"].baseline) == {"loudest_witness", "scan_witness"}
    assert what_if_details(result)["true_witness_by_label"]["blip"]["glitches"] == 4
    outputs = write_what_if(result, asked, out, examples=1, pictures=PictureSettings())
    assert {path.stem for path in (out / "images").iterdir()} == {"case-01", "attribution", "sweep", "transfer"}
    assert {"cases", "attribution", "sweep", "transfer", "true_witness"} <= set(outputs)


class Louder(nn.Module):
    """Half the energies of the first witness, and a rest where all is silent."""

    def forward(self, windows):
        return 0.5 * windows[:, :1] + 0.1


def test_a_model_of_energies_is_asked_on_maps_and_has_no_phase(make_subject, tmp_path):
    subject = make_subject(Louder(), "unet")
    changes = (Intervention("A", "scale", factor=-2.0), Intervention("A", "silence"), Intervention("A", "noise"))
    settings = WhatIfSettings(**{**BARE, "transfer": TransferSettings()}, interventions=changes)
    result, asked, warnings = run_what_if(subject, tmp_path / "out", settings, Known(), progress=False)
    assert "no phase" in warnings[0]
    assert not (tmp_path / "out" / "strain").exists()
    measured = subject.spectrograms.read(channels=["A"]).maps[:, 0]
    made = result.answers.maps.read().maps
    np.testing.assert_allclose(made[:, 1], 2.0 * measured + 0.1, rtol=1e-5)
    np.testing.assert_allclose(made[:, 2], 0.1, rtol=1e-5)
    # the rows of a map of noise have median 1, whatever its spectrum
    assert np.median(made[:, 3]) == pytest.approx(0.6, abs=0.03)
    assert made[:, 3].max() < 0.5 * made[:, 0].max(axis=(1, 2)).min()
    found = [one for one in result.attributed.found if one]
    assert len(found) == 6
    assert all(one.top == 0 and one.active == (0,) for one in found)
    assert all(one.shapley.sum() + one.rest == pytest.approx(1.0, abs=1e-5) for one in found)
    delayed = asked.changed([0], [Intervention("A", "delay", delay=2 / 64)])[0, 0]
    torch.testing.assert_close(delayed[:, 2:], asked.read([0])[0, 0, :, :-2])


def test_events_in_which_next_to_nothing_is_predicted_are_not_attributed(make_subject):
    asked = asked_of(make_subject())
    snr = attribute_events(asked, range(6), AttributionSettings()).snr
    limit = float(np.median(snr))
    found = attribute_events(asked, range(6), AttributionSettings(least_snr=limit, batch_events=4))
    assert [one is not None for one in found.found] == (snr >= limit).tolist()


def test_the_step_passes_over_a_truth_and_a_ranking_that_are_not_there(make_subject, tmp_path):
    subject = make_subject()
    step = WhatIf(
        {"gains": [0.5], "delays": [], "sweep_events": 1, "transfer": {"channels": []}, "examples": 0},
        str(tmp_path / "out"),
        truth=str(tmp_path / "none"),
        ranking=str(tmp_path / "none"),
        events=str(subject.events.folder),
        device="cpu",
    )
    summary = step.execute(subject.bundle, subject.spectrograms)
    assert summary.metrics["events_attributed"].value == 6
    assert "true_witness_share" not in summary.metrics
    assert summary.metrics["mismatch_largest"].value < 1e-9
    table = pd.read_csv(step.place / "attribution.csv")
    assert table.groupby("event_id")["share"].sum().to_list() == pytest.approx([1.0] * 6)


def test_the_configuration_names_the_settings_and_their_defaults():
    assert built(WhatIfSettings, section("what_if")["settings"], "what_if") == WhatIfSettings()
