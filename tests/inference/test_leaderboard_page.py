import numpy as np
import pytest
import torch

from glitchflow_plugin.inference.cases import map_statistics
from glitchflow_plugin.inference.excess import Kind, paired_medians
from glitchflow_plugin.inference.leaderboard import LeaderboardSettings, Standings
from glitchflow_plugin.inference.leaderboard_page import (
    entrants_table,
    figures_of,
    introduction,
    kinds_table,
    page_block,
)
from glitchflow_plugin.inference.score import Sample, score_statistics
from glitchflow_plugin.inference.trivial import TRIVIAL, trivial_maps
from glitchflow_plugin.preprocessing.truth import GlitchTruth

SETTINGS = LeaderboardSettings(replicates=50)
GROUPS = np.arange(24) // 2
LABELS = np.array(["tomte", "", "two_paths", ""] * 6)
DRAW = {"replicates": 50, "seed": 0}


@pytest.fixture(scope="module")
def result():
    """Standings of an entrant that removes most of each glitch, and of those that know nothing."""
    measured = torch.empty(24, 16, 64).exponential_(0.7, generator=torch.Generator().manual_seed(0)).clamp(max=14)
    measured[::2, 5, 30] = 50.0
    said = torch.where(measured > 16, 0.9 * measured, 0.0)
    maps = {"ours": said, **{name: one.expand_as(said).float() for name, one in trivial_maps([measured]).items()}}
    found = {name: map_statistics(measured, one, groups=GROUPS) for name, one in maps.items()}
    removed = {name: one.net_removed for name, one in found.items()}
    kinds = {label: Kind(label, label == LABELS) for label in ("tomte", "two_paths")}
    everything = Kind("0", LABELS != "")
    medians = {name: paired_medians(removed, one.events, GROUPS, **DRAW) for name, one in kinds.items()}
    scores = {name: score_statistics(one, thresholds=range(1, 31), **DRAW) for name, one in found.items()}
    whole = paired_medians(removed, everything.events, GROUPS, reference="ours", **DRAW)
    figures = {
        name: {
            "median_net_removed": whole[name][0],
            "lead": whole[name][1],
            "power_removed": whole[name][0],
            "waveform_lead": whole[name][1],
            "grown": whole[name][0],
            **scores[name].metrics(),
            "added_map": whole[name][0],
            "added_strain": whole[name][0],
        }
        for name in found
    }
    of_class = {name: [medians[label][name][0] for label in kinds] for name in found}
    return Standings(
        figures=figures,
        scores=scores,
        kinds={
            "class": [(label, Sample.of(GROUPS, one.events)) for label, one in kinds.items()],
            "witness SNR": [("< 30", Sample(12, 12))],
            "witnesses missing": [("0", Sample(12, 12))],
        },
        by_kind={
            "class": of_class,
            **{what: {name: [whole[name][0]] for name in found} for what in ("witness SNR", "witnesses missing")},
        },
        samples={"glitches": Sample(12, 12), "quiet": Sample(12, 4)},
        reference=None,
        waveform_reference="ours",
        runner_up="constant",
        margin=whole["constant"][1],
    )


def truth(**changes):
    content = {
        "event_ids": tuple(f"event-{row}" for row in range(24)),
        "strain": np.zeros((24, 8)),
        "label": tuple(LABELS),
        "snr": np.where(LABELS != "", 20.0, 0.0),
        "witness_snr": np.where(LABELS != "", 40.0, 0.0),
        "witnesses": (("V1:MIC",),) * 24,
        "has_merger": np.zeros(24, bool),
        **changes,
    }
    return GlitchTruth(**content)


def test_the_introduction_counts_events_and_groups(result):
    said = introduction(truth(), SETTINGS, result, "Trained.")
    assert "24 held-out events: 12 events in 12 groups with a witnessed glitch" in said
    assert "12 events in 4 groups with neither glitch nor merger. Trained." in said
    assert "fewer than 5" in said
    assert "very waveform" not in said
    assert "outside" not in said


def test_the_introduction_tells_of_made_witnesses_and_of_laws_outside_the_network(result):
    banked = truth(
        from_bank=tuple(label == "tomte" for label in LABELS),
        law=tuple("odd_quadratic" if label == "tomte" else "" for label in LABELS),
        outside=frozenset({"two_paths", "hysteresis"}),
    )
    said = introduction(banked, SETTINGS, result, "Trained.")
    assert "The glitches of 6 of these events were measured, their witnesses were not" in said
    assert "(odd quadratic)" in said
    assert said.endswith("outside the laws of the default network (†): two paths.")


def test_tables_and_page_say_how_many_groups_and_mark_what_is_outside(result):
    facts = {name: {"parameters": 0, "minutes": 0.0, "epochs": 0, "seconds": 0.001} for name in result.figures}
    outside = frozenset({"two_paths"})
    entrants = entrants_table(result, facts).set_index("entrant")
    assert {"median_net_removed", "net_power_removed_low", "veto_roc_auc"} <= set(entrants.columns)
    kinds = kinds_table(result, outside)
    marked = kinds[kinds["outside_the_networks_laws"]]
    assert set(marked["kind"]) == {"two_paths"}
    assert (marked["groups"] == 6).all()
    pictures = figures_of(result, facts, 16.0, outside)
    labels = [text.get_text() for text in pictures["groups"].axes[0].get_xticklabels()]
    assert labels == ["tomte\n6 events\n6 groups", "two paths†\n6 events\n6 groups"]
    page = page_block("Beginning.", result, facts, {name: f"{name}.png" for name in pictures}, outside)
    assert "| two paths † | 6 (6) |" in page
    for name in TRIVIAL:
        assert f"| {name} |" in page
    assert "Constant, clock and mean map know nothing of the witnesses" in page
    assert "balanced veto accuracy at SNR² 16" in page
    assert page.count("![") == len(pictures)
    assert "ours leads constant, the next one, by" in page
    assert "lead over ours, waveform" in page
    assert "| glitches made louder |" in page
    assert "lead over None" not in page
