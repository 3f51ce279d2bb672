"""Triggers of real data: glitches of O3a are found where they are, and those of a search become labels and sets."""

import os
from pathlib import Path

import gwpy
import h5py
import numpy as np
import pytest
from scipy.stats import spearmanr

from glitchflow_plugin.components.label_triggers import LabelTriggers
from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.data.triggers.formats import read_triggers, write_triggers
from glitchflow_plugin.data.triggers.sets import SetSettings, Vocabulary, trigger_sets
from glitchflow_plugin.data.triggers.store import open_triggers
from glitchflow_plugin.data.triggers.table import NANOSECONDS
from glitchflow_plugin.streaming.trigger_search import SearchSettings, search_channel

GLITCHES = Path(os.environ.get("GLITCHFLOW_TEST_DATA", ".")) / "o3_glitches" / "O3a.hdf5"
START, RATE = 1_200_000_000.0, 4096.0
SEARCH = SearchSettings(band=(20.0, 1024.0), stride=4, margin=4, spectrum_length=12, fft_length=2.0, block_length=4)


@pytest.mark.skipif(not GLITCHES.is_file(), reason="GLITCHFLOW_TEST_DATA does not name a folder of real detector data")
def test_glitches_of_o3a_are_found_where_they_are_and_as_loud():
    """Gravity Spy's times are 6 s after the begin of what is left without the filter's ends; its SNRs are Omicron's."""
    found = []
    with h5py.File(GLITCHES) as file:
        examples = [one for ifo in file.values() for kind in ifo.values() for one in kind.values()]
        for one in examples:
            strain = one["strain"][int(RATE) : -int(RATE)].astype(np.float64)
            channel = Channel("L1:STRAIN", strain, START, RATE, "")
            tiles = [
                (snr, origin / NANOSECONDS - START + time)
                for origin, tile in search_channel(channel, (START + 4, START + 8), SEARCH, "cpu")
                for snr, time in zip(tile.snrs, tile.times, strict=True)
            ]
            found.append((float(one.attrs["snr"]), *max(tiles)))
    theirs, own, times = np.array(found).T
    assert len(found) == 30
    assert np.abs(times - 6.0).max() < 0.5
    assert spearmanr(theirs, own).statistic > 0.9
    assert 0.85 < np.median(own / theirs) < 1.0


def test_triggers_of_a_real_search_become_labels_and_sets(tmp_path):
    table = read_triggers(Path(gwpy.__file__).parent / "testing" / "data" / "H1-LDAS_STRAIN-968654552-10.xml.gz")
    write_triggers(table, tmp_path / "store", "parquet")
    (channel,) = set(table["channel"].to_pylist())
    loud = float(np.quantile(table["snr"].to_numpy(), 0.9))
    labelled = LabelTriggers(
        {"times": "strain", "snr": loud, "separation": 0.05, "block_length": 2.0},
        str(tmp_path / "store"),
        str(tmp_path / "labels"),
        target=channel,
        segments=[[968_654_552, 968_654_562]],
    ).execute()
    times = labelled.times()
    glitches = times[times.glitch]
    assert len(table) == 2052
    assert set(glitches.snr) <= set(table["snr"].to_pylist())
    assert (glitches.snr >= loud).all()
    seconds = table["time"].to_numpy()
    # as a witness of another strain: each set holds what is within its window, to the last trigger
    (sets,) = trigger_sets(
        open_triggers(tmp_path / "store"), times.time, Vocabulary((channel,)), "H1:OTHER", SetSettings(window=0.25)
    )
    within = (np.abs(seconds[:, None] - times.time) <= NANOSECONDS // 4).sum(0)
    assert sets.mask.sum(1).tolist() == within.tolist()
    assert within.max() > 30
    assert sets.points[sets.mask][:, :3].isfinite().all()
