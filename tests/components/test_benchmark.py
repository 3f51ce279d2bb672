import json
import re
from pathlib import Path

import pandas as pd
import pytest

from glitchflow_plugin.components._twin_trainer import TwinTrainer
from glitchflow_plugin.components.benchmark import Leaderboard
from glitchflow_plugin.components.processor import Processor
from glitchflow_plugin.components.splitter import Splitter
from glitchflow_plugin.errors import ConfigurationError, FormatError
from glitchflow_plugin.inference.trivial import TRIVIAL
from glitchflow_plugin.preprocessing.ingest import ingest
from glitchflow_plugin.preprocessing.spectrograms import ProcessSettings, event_transform, make_spectrograms
from glitchflow_plugin.products.summary import read_summary
from glitchflow_plugin.settings import built
from glitchflow_plugin.simulation.detector import simulate
from glitchflow_plugin.simulation.settings import SimulationSettings

pytestmark = pytest.mark.slow

WITNESSES = ("V1:ENV-MAG_CEB", "V1:PSL-POWER_MON")
DETECTOR = {
    "duration": 12.0,
    "families": {"blip": {"snr": [20.0, 40.0]}, "tomte": {"snr": [20.0, 40.0]}},
    "mergers": {"fraction": 0.0},
    "gap_fraction": 0.0,
}
ENTRANTS = {
    "zero": {"model": {"name": "zero"}},
    "linear": {"model": {"name": "linear"}},
    "wiener": {"model": {"name": "wiener"}},
    "network": {"model": {"name": "unet", "base": 4, "depth": 2, "attention_heads": 2}, "config": {"batch_size": 8}},
    "coupling": {"model": {"name": "coupling", "features": 4, "filter_size": 65}, "config": {"batch_size": 8}},
}
NOWHERE = {"datasets": [{"path": "not there"}], "truth": None}
MISSPELT = {"misspelt": {"model": {"name": "unnet"}}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A training set of 24 simulated events with its event set, and the raw events of a held-out set."""
    folder = tmp_path_factory.mktemp("data")
    for name, seed, count in (("training", 1, 24), ("inference", 2, 10)):
        content = {**DETECTOR, "seed": seed, "num_events": count, "gps_start": 1.4e9 + 1e5 * seed}
        simulate(built(SimulationSettings, content, "simulate"), folder / name)
    processing = {"minf": 8.0, "maxf": 400.0, "sr": 1024.0, "len": 4.0, "whiten": True}
    entry = {"path": str(folder / "training"), "target": "V1:Hrec_hoft", "ch_list": list(WITNESSES)}
    events = ingest([{**entry, "processing": processing}], None, folder / "events")
    transform = event_transform(events, ProcessSettings(num_t_bins=129))
    maps = make_spectrograms(events, WITNESSES, transform, folder / "maps", selection={"channels": "test"})
    split = Splitter({"block_length": 64.0}, str(maps.folder), str(folder / "set")).execute(maps)
    Processor({}, str(maps.folder), str(folder / "set")).execute(split)
    return folder


@pytest.fixture
def make(data, tmp_path):
    def _make(entrants=tuple(ENTRANTS), **changes):
        keywords = {
            "entrants": {name: (ENTRANTS | MISSPELT)[name] for name in entrants},
            "held_out": {"datasets": [{"path": str(data / "inference")}], "truth": str(data / "inference")},
            "settings": {"missing": [1], "replicates": 50, "batch_events": 4, "accuracy_range": [10, 20]},
            "training": str(data / "set"),
            "events": str(data / "events"),
            "folder": str(tmp_path / "benchmark"),
            "minutes": None,
            "epochs": 1,
            "device": "cpu",
            "disable_tqdm": True,
            **changes,
        }
        return Leaderboard(**keywords)

    return _make


@pytest.fixture
def _undrawn(monkeypatch):
    """The pictures, which take half of the time of a leaderboard that is there, are not of interest."""
    monkeypatch.setattr("glitchflow_plugin.inference.leaderboard_page.save_figure", lambda *_: None)


def test_entrants_of_both_kinds_are_trained_judged_and_shown(make, tmp_path):
    page = tmp_path / "docs" / "results.md"
    page.parent.mkdir()
    page.write_text("before\n<!-- leaderboard:begin demo -->\n<!-- leaderboard:end demo -->\nafter\n", encoding="utf-8")
    result = make(page=str(page)).execute()

    assert set(result.figures) == {*ENTRANTS, *TRIVIAL}
    assert result.figures["zero"]["median_net_removed"].value == 0
    assert result.figures["wiener"]["power_removed"].value is not None
    assert result.figures["linear"]["power_removed"].value is None
    # by all that they predict: the strain of a quiet event would refuse what is added
    assert result.figures["wiener"]["added_strain"].value > 0
    assert result.reference in {"linear", "wiener"}
    # blips and tomtes reach the strain almost linearly, and are loud: both filters must see that
    assert result.figures["linear"]["median_net_removed"].value > 0.1
    assert result.figures["wiener"]["median_net_removed"].value > 0.1
    assert [name for name, _ in result.kinds["class"]] == ["blip", "tomte"]

    folder = tmp_path / "benchmark"
    table = pd.read_csv(folder / "entrants.csv").set_index("entrant")
    assert table.loc["network", "epochs"] == 1
    assert table.loc["zero", "parameters"] == 0
    assert table.loc["network", "parameters"] > table.loc["linear", "parameters"] > 0
    assert (table["milliseconds_an_event"] > 0).all()
    kinds = pd.read_csv(folder / "kinds.csv")
    assert set(kinds["by"]) == {"class", "witness SNR", "witnesses missing"}
    assert (kinds["groups"] <= kinds["events"]).all()
    merits = result.scores["wiener"].merits()
    for name in TRIVIAL:
        for figure, estimate in result.scores[name].merits().items():
            assert estimate.value <= merits[figure].value, (name, figure)
    assert read_summary(folder).metrics["median_net_removed_zero"].value == 0
    for name in ("entrants", "accuracy", "groups", "missing", "trust-coupling"):
        assert (folder / f"{name}.png").exists()

    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| coupling |" in text
    for name in TRIVIAL:
        assert f"| {name} |" in text
    assert "with a witnessed glitch of strain SNR above 10" in text
    assert re.search(r"\d+ events in \d+ groups", text)
    assert "Events of one group" in text
    assert text.count("| `novelty_p` at most 0.05 |") == 1
    for line in text.splitlines():
        if line.startswith("!["):
            assert (page.parent / line[line.index("(") + 1 : -1]).exists()


@pytest.mark.usefixtures("_undrawn")
def test_a_run_goes_on_at_the_entrants_that_are_missing_or_changed(make, monkeypatch, tmp_path):
    make(("zero", "network")).execute()
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "benchmark/entrants").iterdir()}
    assert set(kept) == {"zero.json", "network.json"}
    trained = []
    original = TwinTrainer.execute

    def watched(self, *arguments):
        trained.append(self.network_settings)
        return original(self, *arguments)

    monkeypatch.setattr(TwinTrainer, "execute", watched)
    again = make(("zero", "network")).execute()
    assert not trained
    # other groups and another bootstrap need no training
    make(("zero", "network"), settings={"missing": [1], "replicates": 20, "witness_snr": [40]}).execute()
    assert not trained
    # a killed run or a damaged file leaves an entrant to be made anew
    path = tmp_path / "benchmark/entrants/network.json"
    path.write_text(path.read_text(encoding="utf-8")[:100], encoding="utf-8")
    third = make(("zero", "network")).execute()
    assert len(trained) == 1
    # the same seed, so the same figures
    assert third.figures["network"]["median_net_removed"] == again.figures["network"]["median_net_removed"]
    make(("zero", "network"), random_seed=1).execute()
    assert len(trained) == 2
    assert json.loads(path.read_text(encoding="utf-8"))["judgement"]["facts"]["epochs"] == 1
    assert (tmp_path / "benchmark/entrants/zero.json").stat().st_mtime_ns == kept["zero.json"]


def test_a_curve_of_fewer_events_goes_on_and_ends_at_the_entrants_of_the_leaderboard(make, monkeypatch, tmp_path):
    page = tmp_path / "docs" / "results.md"
    page.parent.mkdir()
    page.write_text(
        "".join(
            f"<!-- {kind}:{end} demo -->\n" for kind in ("leaderboard", "learning-curve") for end in ("begin", "end")
        )
    )
    curve = {"entrants": ["wiener", "network"], "events": [6, 1000]}
    make(("wiener", "network"), learning_curve=curve, page=str(page)).execute()
    files = sorted(path.name for path in (tmp_path / "benchmark/entrants").iterdir())
    assert len(files) == 4
    assert sum(name.startswith("network-6-events-") for name in files) == 1
    table = pd.read_csv(tmp_path / "benchmark/learning_curve.csv")
    whole = pd.read_csv(tmp_path / "benchmark/entrants.csv").set_index("entrant")
    assert len(table) == 4
    assert table["events"].min() == 6
    last = table[table["events"] > 6].set_index("entrant")
    few = table[table["events"] == 6].set_index("entrant")
    for name in ("wiener", "network"):
        assert last.loc[name, "median_net_removed"] == whole.loc[name, "median_net_removed"]
        assert few.loc[name, "median_net_removed"] != whole.loc[name, "median_net_removed"]
    text = page.read_text(encoding="utf-8")
    assert "| training events | groups of glitches |" in text
    assert (page.parent / "pictures/leaderboard-demo-learning-curve.png").exists()
    # all of it is kept
    monkeypatch.setattr(TwinTrainer, "execute", None)
    make(("wiener", "network"), learning_curve=curve).execute()


@pytest.mark.usefixtures("_undrawn")
def test_own_events_are_judged_by_what_their_maps_show(make, data, tmp_path):
    result = make(
        ("zero", "wiener"), held_out={"datasets": [{"path": str(data / "inference")}], "truth": None}
    ).execute()
    page = (tmp_path / "benchmark/leaderboard.md").read_text(encoding="utf-8")
    assert "but what the maps show" in page
    assert "lead over None" not in page
    known = make(("zero", "wiener")).execute()
    assert result.samples["glitches"].cases > 0
    assert result.waveform_reference is None
    # blips and tomtes are loud here: nearly the same events count
    measured, true = (one.figures["wiener"]["median_net_removed"].value for one in (result, known))
    assert measured == pytest.approx(true, abs=0.15)
    for one, told in ((result, False), (known, True)):
        assert (one.figures["wiener"]["power_removed"].value is not None) is told


def test_what_cannot_work_is_said_before_anything_is_trained(make, data):
    with pytest.raises(ConfigurationError, match="unnet"):
        make(("misspelt",))
    with pytest.raises(ConfigurationError, match="optim_lrr"):
        make(("linear",), config={"optim_lrr": 1e-3})
    with pytest.raises(ConfigurationError, match="at least one entrant"):
        make(())
    with pytest.raises(ConfigurationError, match="of every leaderboard already"):
        Leaderboard(**make().parameters | {"entrants": {"clock": ENTRANTS["zero"]}})
    with pytest.raises(ConfigurationError, match="held_out"):
        make(held_out={"datasets": []})
    with pytest.raises(ConfigurationError, match="Nearest: network"):
        make(learning_curve={"entrants": ["netwrk"], "events": [10]})
    with pytest.raises(ConfigurationError, match="cannot be compared with 400 groups"):
        make(("zero",), learning_curve={"entrants": ["zero"], "groups": [2, 400]}, held_out=NOWHERE).execute()
    with pytest.raises(ConfigurationError, match="least_snrr"):
        make(settings={"least_snrr": 3})
    training = str(data / "training")
    with pytest.raises(ConfigurationError, match="in the training set too"):
        make(("zero",), held_out={"datasets": [{"path": training}], "truth": training}).execute()
    with pytest.raises(FormatError, match="no truth file"):
        make(("zero",), held_out={"datasets": [{"path": str(data / "inference")}], "truth": str(Path(data))}).execute()
