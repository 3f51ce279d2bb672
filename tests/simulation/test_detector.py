import hashlib
import pickle

import numpy as np
import pytest
from tests._configuration import section

from glitchflow_plugin.data.datasets import DatasetSettings
from glitchflow_plugin.data.event_files import list_event_files, read_event
from glitchflow_plugin.errors import ConfigurationError, DataError
from glitchflow_plugin.preprocessing.engine import ShardError
from glitchflow_plugin.settings import built
from glitchflow_plugin.simulation import detector
from glitchflow_plugin.simulation.detector import Detector, event_path, simulate
from glitchflow_plugin.simulation.settings import SimulationSettings

SMALL = {"num_events": 3, "duration": 8.0, "mergers": {"fraction": 0.0}, "families": {"blip": {}, "tomte": {}}}


def settings(**other):
    return built(SimulationSettings, {**SMALL, **other}, "simulate")


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in list_event_files(folder)}


def test_a_set_is_event_files_and_their_truth(tmp_path):
    made = simulate(settings(), tmp_path / "set")
    truth = made.truth()
    assert len(made) == 3
    assert [read_event(path).event_id for path in list_event_files(made.folder)] == list(made.event_ids)
    assert list(truth.events) == list(made.event_ids)
    assert truth.target == made.target == "V1:Hrec_hoft"
    assert set(made.channels) == set(truth.roles)
    assert truth.true_witnesses == ("V1:ENV-MAG_CEB", "V1:PSL-POWER_MON")
    assert truth.channels("unsafe") == ("V1:LSC-DARM_PICKOFF",)
    assert truth.channels("dead") == ("V1:ENV-MAG_DEAD",)
    # a sensor whose family does not occur only distracts
    assert "V1:PSL-FSS_VCO_FREQ" in truth.channels("distractor")
    assert not (made.folder / ".truth-parts").exists()


def test_the_truth_file_lists_the_families_outside_the_networks_laws(tmp_path):
    families = {"blip": {}, "hysteresis": {}, "two_paths": {"weight": 0.0}}
    truth = simulate(settings(num_events=2, families=families), tmp_path).truth()
    assert truth.recipe["outside"] == ["hysteresis"]
    assert truth.families["hysteresis"] == ("V1:SAT-CLAMP_ACC",)


def test_what_is_written_is_what_is_simulated_in_memory(tmp_path):
    made = simulate(settings(), tmp_path)
    event, truth = Detector(settings()).event(1)
    written = read_event(event_path(tmp_path, event.event_id))
    assert written.gps_event == event.gps_event
    for name, channel in event.channels.items():
        np.testing.assert_array_equal(written.channels[name].series, channel.series)
        assert written.channels[name].unit == channel.unit
    stored = made.truth().events[event.event_id]
    assert stored.transients == truth.transients
    assert [one.snr for one in stored.glitches] == [one.snr for one in truth.glitches]


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_run_or_the_number_of_workers(tmp_path):
    simulate(settings(), tmp_path / "a")
    simulate(settings(), tmp_path / "b", workers=2)
    simulate(settings(seed=9), tmp_path / "c")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert not set(digests(tmp_path / "a").values()) & set(digests(tmp_path / "c").values())


def test_a_killed_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    written, write = [], detector.write_event

    def killed(path, event):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(event.event_id)
        write(path, event)

    monkeypatch.setattr(detector, "write_event", killed)
    with pytest.raises(KeyboardInterrupt):
        simulate(settings(), tmp_path / "set")
    written.clear()
    made = simulate(settings(), tmp_path / "set")
    assert written == [made.event_ids[2]]
    monkeypatch.undo()
    whole = simulate(settings(), tmp_path / "whole")
    assert digests(made.folder) == digests(whole.folder)
    assert list(made.truth().events) == list(whole.truth().events)


def test_a_finished_set_is_left_alone_and_a_missing_event_made_again(tmp_path, monkeypatch):
    made = simulate(settings(), tmp_path)
    before = digests(tmp_path)
    event_path(tmp_path, made.event_ids[1]).unlink()
    written, write = [], detector.write_event
    monkeypatch.setattr(
        detector, "write_event", lambda path, event: (written.append(event.event_id), write(path, event))
    )
    simulate(settings(), tmp_path)
    assert written == [made.event_ids[1]]
    assert digests(tmp_path) == before
    simulate(settings(), tmp_path)
    assert written == [made.event_ids[1]]


def test_a_set_can_grow_and_shrink(tmp_path):
    simulate(settings(num_events=2), tmp_path)
    before = digests(tmp_path)
    grown = simulate(settings(num_events=3), tmp_path)
    assert before.items() <= digests(tmp_path).items()
    assert len(grown.truth().events) == 3
    shrunk = simulate(settings(num_events=1), tmp_path)
    assert len(digests(tmp_path)) == len(shrunk.truth().events) == 1


def test_another_recipe_replaces_the_set(tmp_path):
    simulate(settings(), tmp_path)
    before = digests(tmp_path)
    simulate(settings(seed=5), tmp_path)
    after = digests(tmp_path)
    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())


def test_files_of_others_are_never_touched(tmp_path):
    precious = tmp_path / "measured.h5"
    precious.write_bytes(b"data")
    with pytest.raises(ConfigurationError, match="another folder"):
        simulate(settings(), tmp_path)
    assert precious.read_bytes() == b"data"


def test_a_broken_truth_file_is_made_again(tmp_path):
    made = simulate(settings(), tmp_path)
    made.truth_path.write_bytes(b"broken")
    assert len(simulate(settings(), tmp_path).truth().events) == 3


def test_an_event_that_fails_is_named_and_the_finished_ones_stay(tmp_path, monkeypatch):
    write = detector.write_event

    def full(path, event):
        if list_event_files(tmp_path):
            raise DataError(f"{path}: the disk is full.")
        write(path, event)

    monkeypatch.setattr(detector, "write_event", full)
    with pytest.raises(ShardError, match=r"simulate .*V1-1400000068.*the disk is full\. Finished shards are kept"):
        simulate(settings(), tmp_path)
    assert len(list_event_files(tmp_path)) == 1
    monkeypatch.undo()
    assert len(simulate(settings(), tmp_path).truth().events) == 3


def test_what_all_events_share_goes_to_the_workers_as_it_is():
    made = Detector(settings(mergers={"fraction": 1.0}))
    arrived = pickle.loads(pickle.dumps(made))  # noqa: S301  # made here
    (here, _), (there, _) = made.event(0), arrived.event(0)
    for name, channel in here.channels.items():
        np.testing.assert_array_equal(there.channels[name].series, channel.series)


def test_the_slow_channels_that_the_leaderboard_names_are_there():
    profile = "conf/profile=leaderboard"
    (entry,) = section("datasets", profile)
    simulated = {**section("simulate.detector", profile), "num_events": 1, "duration": 8.0}
    event, _ = Detector(built(SimulationSettings, simulated, "simulate")).event(0)
    named = built(DatasetSettings, entry, "datasets").channels.slow
    assert named
    assert set(named) <= set(event.channels)
