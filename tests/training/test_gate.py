from dataclasses import replace

import numpy as np
import pytest

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.training.gate import GateSettings, Judgement, Signals, decide, paired_difference

WITNESSES = ("GUIDE", "BYSTANDER")
SETTINGS = GateSettings(min_groups=40)


def make(loss, **changes):
    """Judgement of a harmless twin, of whose events every second is quiet."""
    loss = np.asarray(loss, dtype=float)
    count = len(loss)
    values = {
        "event": np.array([f"event-{row}" for row in range(count)], dtype=object),
        "gps_event": 1e9 + 100.0 * np.arange(count),
        "group": np.arange(count),
        "loss": loss,
        "zero_loss": np.ones(count),
        "quiet": np.arange(count) % 2 == 0,
        "harmed": np.zeros(count, dtype=bool),
        "added": np.zeros(count),
        "measured": np.ones(count),
        "series_added": np.zeros((count, 3)),
        "series_measured": np.full((count, 3), [1.0, 9.0, 90.0]),
        "octave_noise": np.array([1.0, 9.0, 90.0]),
        "octave_edges": (0.0, 1.0, 2.0, 512.0),
        "lost": np.zeros(12),
    }
    return Judgement(**{**values, **changes})


@pytest.fixture
def losses():
    generator = np.random.default_rng(3)
    return 0.2 + 0.1 * generator.random(60), generator


def test_the_first_must_beat_predicting_nothing(losses):
    hard, _ = losses
    verdict = decide(make(hard), WITNESSES, SETTINGS)
    assert verdict.promoted
    assert verdict.figures["zero_loss_difference_high"] < 0
    for loss in (np.ones(60), hard + 1.3, 1 + 0.2 * (hard - hard.mean())):
        verdict = decide(make(loss), WITNESSES, SETTINGS)
        assert not verdict.promoted
        assert "not less by more than the noise than that of a trivial prediction" in verdict.reason


def test_better_than_the_champion_by_more_than_the_noise_and_nothing_else(losses):
    hard, generator = losses
    better = make(hard - 0.01 + 0.005 * generator.standard_normal(60))
    verdict = decide(better, WITNESSES, SETTINGS, (better, make(hard)))
    assert verdict.promoted
    assert verdict.figures["loss_difference_high"] < 0
    # the same mean difference, but from event to event so different that it may be chance
    noisy = make(hard - 0.01 + 0.2 * generator.standard_normal(60))
    verdict = decide(noisy, WITNESSES, SETTINGS, (noisy, make(hard)))
    assert not verdict.promoted
    assert "not less by more than the noise than that of the champion" in verdict.reason
    # the same twin again, and a worse one
    assert not decide(make(hard), WITNESSES, SETTINGS, (make(hard), make(hard))).promoted
    worse = make(hard + 0.01)
    assert not decide(worse, WITNESSES, SETTINGS, (worse, make(hard))).promoted


@pytest.mark.parametrize("scale", [1.0, 0.03])  # a loss of maps is of another size
def test_no_worse_than_its_linear_filter(losses, scale):
    hard, generator = losses
    hard, nothing = hard * scale, np.full(60, scale)
    one, wobble = make(hard, zero_loss=nothing), generator.standard_normal(60) * scale

    def verdict(linear, challenger=one, **changes):
        return decide(challenger, WITNESSES, replace(SETTINGS, **changes), linear=make(linear, zero_loss=nothing))

    lead = verdict(hard + 0.3 * scale)
    assert lead.promoted
    assert lead.figures["linear_loss_difference_high"] < 0 < lead.figures["linear_gate_loss"]
    # where the truth is linear nobody does better
    assert verdict(hard + 0.01 * wobble).promoted
    assert "is no more than that of its linear filter" in verdict(hard).reason
    # worse by more than the margin; as good on average, but so different that nobody can tell
    for linear in (hard - 0.1 * scale, hard + 0.5 * wobble):
        behind = verdict(linear)
        assert not behind.promoted
        assert "is not shown to be no more than that of its linear filter" in behind.reason
        assert "is less than that of a trivial prediction" in behind.reason
    assert verdict(hard - 0.1 * scale, max_behind_linear=0.2).promoted
    # worse in one group of a few events, which counts as one beside those of one event each
    groups = np.r_[np.zeros(11, dtype=int), 1 + np.arange(49)]
    better_alone = hard - np.where(groups == 0, -0.5, 0.1) * scale
    assert not verdict(better_alone, make(hard, zero_loss=nothing, group=groups)).promoted


def test_a_version_without_a_linear_filter_says_so(losses):
    verdict = decide(make(losses[0]), WITNESSES, SETTINGS)
    assert verdict.promoted
    assert "it brings no linear filter" in verdict.reason


def test_better_than_a_bad_champion_is_not_enough(losses):
    bad = make(losses[0] + 1.0)
    assert not decide(bad, WITNESSES, SETTINGS, (bad, make(losses[0] + 2.0))).promoted


def test_right_in_most_events_and_much_worse_in_some_is_refused():
    loss = np.where(np.arange(100) % 10 == 0, 5.0, 0.9)
    growth = np.where(np.arange(100)[:, None] % 10 == 0, 50.0, 0.0) * [1, 0, 0]
    verdict = decide(make(loss, series_added=growth), WITNESSES, SETTINGS)
    assert not verdict.promoted
    assert "not less by more than the noise" in verdict.reason
    assert "raises the power of event event-0 (GPS 1000000000.000) by 50.00%, and of 10 events" in verdict.reason
    # and were it much better in all others: the limit of each event stands
    verdict = decide(make(np.full(100, 0.1), series_added=growth), WITNESSES, SETTINGS)
    assert not verdict.promoted


def test_groups_are_drawn_and_counted_not_events(losses):
    hard, _ = losses
    together = np.arange(60) // 5
    verdict = decide(make(hard, group=together), WITNESSES, SETTINGS)
    assert not verdict.promoted
    assert "only 12 independent groups (60 events)" in verdict.reason
    assert "at least 40 groups are needed" in verdict.reason
    one, other = make(hard, group=together), make(hard + 0.1, group=together)
    assert paired_difference(one, other, SETTINGS)[0] == pytest.approx(-0.1)
    with pytest.raises(ConfigurationError, match="same events"):
        paired_difference(one, make(hard[:4]), SETTINGS)


HARMS = {
    "lifts 10.00% of the quiet events": {"harmed": np.isin(np.arange(60), [0, 2, 4])},
    "adds 2.00% to the energy of the maps": {"added": np.full(60, 0.02)},
    "adds 5.00% to the power of quiet series": {"series_added": np.full((60, 3), 5 / 3)},
    "adds 60.00% of white noise's power to quiet series between 1 and 2 Hz": {
        "series_added": np.where(np.arange(60)[:, None] % 2 == 0, [0.0, 5.4, -5.0], 0)
    },
    "by 30.00%, and of 1 events by more than 10.00%": {"series_added": np.eye(60, 3) * [0, 30, 0]},
    "changes the SNR of an injected merger by 20.00% (median 0.00%)": {"lost": np.array([0.0] * 11 + [0.2])},
    "not be tested: no events": {"lost": None, "not_tested": "no events"},
    "only 4 events without a glitch, at least 5 are needed": {"quiet": np.arange(60) < 4},
    "no event without a glitch": {"quiet": np.zeros(60, dtype=bool)},
    "nan%": {"series_added": np.full((60, 3), np.nan)},
}


@pytest.mark.parametrize("said", HARMS)
def test_harm_stops_even_the_first_and_the_best(losses, said):
    hard, _ = losses
    one = make(hard - 0.1, **HARMS[said])
    for rivals in (None, (one, make(hard))):
        verdict = decide(one, WITNESSES, SETTINGS, rivals)
        assert not verdict.promoted
        assert "is less" in verdict.reason
        assert said in verdict.reason


def test_what_is_removed_in_one_octave_pays_for_nothing_in_another(losses):
    loud = np.arange(60)[:, None] % 2 == 1
    measured = np.where(loud, [1.0, 900.0, 90.0], [1.0, 9.0, 90.0])
    added = np.where(loud, [0.0, -850.0, 40.0], 0.0)
    verdict = decide(make(losses[0], series_added=added, series_measured=measured), WITNESSES, SETTINGS)
    assert not verdict.promoted
    assert "by 40.00%, and of 30 events by more than 10.00%" in verdict.reason


def test_every_group_counts_as_one():
    together = np.r_[np.zeros(11, dtype=int), 1 + np.arange(49)]
    judged = make(np.where(together == 0, 0.2, 1.05), group=together)
    assert judged.loss.mean() < 1 < judged.figures()["gate_loss"]
    assert not decide(judged, WITNESSES, SETTINGS).promoted


def test_a_twin_of_energies_is_judged_by_its_maps(losses):
    series = {"series_added": None, "series_measured": None, "octave_noise": None}
    assert decide(make(losses[0], **series), WITNESSES, SETTINGS).promoted
    grown = np.zeros(60)
    grown[7] = 0.5
    verdict = decide(make(losses[0], added=grown, **series), WITNESSES, SETTINGS)
    assert "raises the power of event event-7 (GPS 1000000700.000) by 50.00%" in verdict.reason
    assert not verdict.promoted


def test_a_test_that_was_switched_off_is_named(losses):
    verdict = decide(make(losses[0], lost=None), WITNESSES, replace(SETTINGS, injections=0))
    assert verdict.promoted
    assert "was not tested (registry.gate.injections: 0)" in verdict.reason


def test_unsafe_channels_are_refused_unless_named(losses):
    one = make(losses[0])
    unsafe = replace(SETTINGS, unsafe=["BY*"])
    assert "BYSTANDER" in decide(one, WITNESSES, unsafe).reason
    assert not decide(one, WITNESSES, unsafe).promoted
    assert decide(one, WITNESSES, replace(unsafe, safe_override=["BYSTANDER"])).promoted


def test_what_cannot_be_told_is_not_promoted(losses):
    one, nothing = make(losses[0]), Judgement.empty()
    verdict = decide(nothing, WITNESSES, SETTINGS)
    assert not verdict.promoted
    assert "none in the gate's part which it has not seen" in verdict.reason
    verdict = decide(one, WITNESSES, SETTINGS, (nothing, nothing))
    assert not verdict.promoted
    assert "none in the gate's part which neither has seen" in verdict.reason
    wrong = ({"max_added": -1}, {"max_event": np.nan}, {"confidence": 1.0}, {"min_groups": 4}, {"unsafe": "V1:DARM"})
    for changes in wrong:
        with pytest.raises(ConfigurationError):
            GateSettings(**changes)


def test_some_events_of_a_judgement(losses):
    one = make(losses[0])
    some = one.select(np.arange(60) % 3 == 0)
    assert len(some) == some.num_groups == 20
    assert some.series_added.shape == (20, 3)
    np.testing.assert_array_equal(some.loss, losses[0][::3])


def signals(before, after, near=False):
    """Two of SNR 9 and 20 in quiet events, or across glitches with the first two."""
    quiet, size = np.array([9.0, 20.0]), 4 if near else 2
    injected = np.tile(quiet, size // 2)
    given = (np.r_[quiet, one] if near else np.array(one) for one in (before, after))
    return Signals(injected, *given, near_glitch=np.arange(size) > 1)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (signals([9.0, 20.0], [9.0, 20.0]), ""),
        (signals([9.0, 20.0], [9.08, 20.1]), ""),
        (signals([9.0, 20.0], [9.3, 20.5]), "SNR of mergers in quiet events by 2.92% (median)"),
        (signals([9.0, 20.0], [7.9, 20.0]), "1 injected merger(s) that were found with SNR 8 are missed"),
        (signals([8.01, 20.0], [7.99, 20.0]), ""),  # on the edge
        # a glitch that is gone no longer lifts what is faint; what is loud must stay
        (signals([13.0, 30.0], [7.9, 20.0], near=True), ""),
        (signals([9.0, 20.0], [9.0, 7.0], near=True), "1 injected merger(s)"),
        # of what is across glitches the error falls as they are taken away, and must not rise
        (signals([12.0, 25.0], [9.5, 20.5], near=True), ""),
        (
            signals([9.5, 20.5], [12.0, 25.0], near=True),
            "across glitches is wrong by 29.17% after cleaning, and by 4.03%",
        ),
    ],
)
def test_signals_are_found_as_before(losses, found, why):
    verdict = decide(make(losses[0], signals=found), WITNESSES, SETTINGS)
    assert verdict.promoted == (not why), verdict.reason
    assert why in verdict.reason
