import numpy as np
import pytest

from glitchflow_plugin.data.event_files import Channel, RawEvent, read_event, write_event
from glitchflow_plugin.errors import DataError
from glitchflow_plugin.preprocessing.ingest import ingest
from glitchflow_plugin.preprocessing.truth import read_glitch_truth
from glitchflow_plugin.settings import built
from glitchflow_plugin.simulation.detector import event_path, simulate
from glitchflow_plugin.simulation.settings import SimulationSettings

PROCESSING = {"minf": 8.0, "maxf": 400.0, "sr": 1024.0, "len": 4.0, "whiten": True}


def processed(folder, out):
    return ingest([{"path": str(folder), "target": "V1:Hrec_hoft", "processing": PROCESSING}], None, out)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    families = {"blip": {"snr": [20.0, 30.0]}, "tomte": {"snr": [20.0, 30.0]}}
    content = {"num_events": 5, "duration": 12.0, "families": families, "no_glitch_fraction": 0.4}
    folder = tmp_path_factory.mktemp("truth")
    made = simulate(
        built(SimulationSettings, {**content, "mergers": {"fraction": 0.0}, "seed": 4}, "simulate"), folder / "set"
    )
    return made, processed(made.folder, folder / "events")


def test_truth_is_what_taking_the_glitch_away_changes(simulated, tmp_path):
    """Independent reference: the event set made from strain without its glitches, whitened by nearly the same noise."""
    made, events = simulated
    truth, known = read_glitch_truth(made.folder, events.recipe, events.event_ids, events.gps_start), made.truth()
    for name in events.event_ids:
        event = read_event(event_path(made.folder, name))
        strain = event.channels[made.target]
        left = strain.series - known.events[name].glitch_strain(strain.sample_rate)
        channel = Channel(strain.name, left, strain.t0, strain.sample_rate, strain.unit)
        write_event(tmp_path / "clean" / f"event-{name}.h5", RawEvent(name, event.gps_event, {strain.name: channel}))
    clean = processed(tmp_path / "clean", tmp_path / "events")
    difference = events.read().series[:, 0] - clean.read().series[:, 0]
    # the trigger is not in the middle of every crop, and the truth lies where the strain does
    assert np.ptp(events.gps_event - events.gps_start) > 0.2
    assert truth.quiet.any()
    assert truth.witnessed.any()
    for row, quiet in enumerate(truth.quiet):
        if quiet:
            assert not truth.strain[row].any()
            assert truth.label[row] == truth.law[row] == ""
        else:
            # the spectrum leaves the event out, so the two filters are nearly one
            np.testing.assert_allclose(truth.strain[row], difference[row], atol=0.02 * np.abs(difference[row]).max())
            # whitened, a glitch has its optimal SNR as norm, up to the scatter of the spectrum and the band
            assert np.linalg.norm(truth.strain[row]) == pytest.approx(truth.snr[row], rel=0.25)
            assert truth.witness_snr[row] == max(known.events[events.event_ids[row]].glitches[0].witness_snr.values())


def test_groups_and_laws_are_those_of_the_simulation(simulated):
    made, events = simulated
    truth, known = read_glitch_truth(made.folder, events.recipe, events.event_ids, events.gps_start), made.truth()
    assert truth.group == tuple(known.events[name].group for name in events.event_ids)
    assert len(set(truth.group)) == len(events)
    assert not any(truth.from_bank)
    for name, law in zip(events.event_ids, truth.law, strict=True):
        glitches = known.events[name].glitches
        assert law == (glitches[0].coupling["form"] if glitches else "")


def test_rows_follow_the_events_asked_for(simulated):
    made, events = simulated
    every = read_glitch_truth(made.folder, events.recipe, events.event_ids, events.gps_start)
    rows = [3, 0]
    names = [events.event_ids[row] for row in rows]
    some = read_glitch_truth(made.folder, events.recipe, names, events.gps_start[rows])
    np.testing.assert_array_equal(some.strain, every.strain[rows])
    assert some.label == (every.label[3], every.label[0])
    with pytest.raises(DataError, match="knows nothing of 1 events"):
        read_glitch_truth(made.folder, events.recipe, ["event-of-another-set"], np.zeros(1))
