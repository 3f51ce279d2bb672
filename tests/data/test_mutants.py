"""Whatever is wrong with a file, it ends as `same` or `rejected with a reason`, in bounded time and memory."""

import random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests._limits import run_limited
from tests.data._mutants import (
    ATTRIBUTES,
    BYTES,
    DISTINCT,
    FILES,
    LAYOUTS,
    OTHER,
    RATES,
    SHAPES,
    T0,
    TARGET,
    VALUES,
    WITNESS,
)

EVERY = [
    *(
        (f"attribute:{name}", what, channel, 0)
        for name in ATTRIBUTES
        for what in ("missing", *VALUES)
        for channel in (TARGET, WITNESS)
        if name != "gps_event" or channel == TARGET
    ),
    *(("shape", what, channel, 0) for what in SHAPES for channel in (TARGET, WITNESS)),
    *(("bytes", what, TARGET, 0) for what in BYTES),
    *(("file", what, OTHER, 0) for what in FILES),
]

SEEDS = given(seed=st.integers(0, 2**32 - 1))


def drawn(every, item, seed, size):
    """So many mutations: about one in two of `every`, the others of the bytes.

    By the seed of a generator: a list of hypothesis begins with one mutation so many times.
    """
    rng = random.Random(seed)  # noqa: S311
    spoilt = ("flipped", "truncated", "zeroed")
    return [
        rng.choice(every) if rng.random() < 0.5 else ("bytes", rng.choice(spoilt), item, rng.randrange(10**6))
        for _ in range(size)
    ]


def check(folder, chosen, *, seconds):
    ran = run_limited("tests.data._mutants:ingest_mutants", str(folder), chosen, seconds=seconds, gib=6)
    assert ran.failure is None, ran.failure
    assert "Traceback" not in ran.said
    assert ran.peak < 2, f"{ran.peak:.2f} GiB"
    result = ran.result
    # the bytes of a name may become those of another file's
    twice = {name for name, _, _, detail in result["flaws"] if "is in another file too" in detail}
    assert result["read"] + len(twice) == len(chosen) + 3  # a pipe is there too
    told = {}
    for name, channel, reason, detail in result["flaws"]:
        assert reason
        assert detail
        told.setdefault(name, {})[channel] = detail
    for number in range(len(chosen) + 2):
        name = f"event-{number:04d}"
        kind, _, channel, _ = chosen[number] if number < len(chosen) else ("good", "", "", 0)
        held = [event_id for event_id in result["events"] if event_id.endswith(name)]
        if twice.intersection(held) or (kind == "bytes" and not held and name not in told):
            continue  # its name is among what was flipped; it is counted above
        if not held:  # rejected: the file or its target
            assert kind != "good", result
            assert name in result["rejected"] or "" in told.get(name, {}), (name, chosen[number])
            assert set(told[name]) & {"", TARGET}
            continue
        event = result["events"][held[0]]
        for one, valid in event["valid"].items():
            if not valid:
                assert kind != "good" or one not in RATES
                assert one in told[held[0]], (name, one, chosen[number])
            elif kind in ("good", "shape") or kind.startswith("attribute"):
                assert one == channel or event["same"].get(one, True), (name, one, chosen[number])


def test_every_mutation_once(tmp_path):
    check(tmp_path, EVERY, seconds=200)


@pytest.mark.slow
@settings(max_examples=9, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@SEEDS
def test_a_thousand_mutations(tmp_path_factory, seed):
    check(tmp_path_factory.mktemp("mutants"), drawn(EVERY, TARGET, seed, 112), seconds=550)


def every_of(layout):
    """Each mutation of a file of continuous data once; at the end those that make it reach over all later files."""
    _, _, items, attributes = LAYOUTS[layout]
    found = [
        *(
            (f"attribute:{name}", what, item, 0)
            for name in attributes
            for what in ("missing", *VALUES)
            for item in items
        ),
        *(("shape", what, item, 0) for what in SHAPES for item in items),
        *(("bytes", what, "", 0) for what in BYTES),
        *(("file", what, "", 0) for what in ("folder", "fifo", "socket", "dangling file", "circular file")),
    ]
    return sorted(found, key=reaches_far)


def reaches_far(mutation):
    kind, what, _, _ = mutation
    return (kind == "shape" and "bomb" in what) or (kind in ("attribute:dx", "attribute:Xspacing") and what == "half")


def check_continuous(folder, layout, chosen, *, seconds):
    """Sound files give what they give alone; what is lost of the others is told, and nothing raises."""
    ran = run_limited("tests.data._mutants:cut_mutants", str(folder), layout, chosen, seconds=seconds, gib=6)
    assert ran.failure is None, ran.failure
    assert "Traceback" not in ran.said
    assert ran.peak < 2, f"{ran.peak:.2f} GiB"
    wanted, made = ran.result["wanted"], ran.result["made"]
    told = {(name, channel) for name, channel, reason, detail in ran.result["flaws"] if reason and detail}
    assert len(told) == len({(name, channel) for name, channel, _, _ in ran.result["flaws"]})
    for number, mutation in enumerate([None, None, *chosen], 1):
        event_id = f"{T0 + 100 * number + 16:.6f}"
        found = made.get(event_id, {})
        sound = wanted[f"{T0 + 100 * ((number - 1) % DISTINCT + 1) + 16:.6f}"]
        assert mutation or found == sound
        for channel, samples in sound.items():
            if channel not in found:
                assert {(event_id, channel), (event_id, LAYOUTS[layout][1])} & told, mutation
            elif mutation and mutation[0] != "bytes" and mutation[2] in RATES and mutation[2] != channel:
                assert found[channel] == samples, mutation


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("fast", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["some", "every"])
def test_mutations_of_continuous_files(tmp_path, layout, fast):
    check_continuous(tmp_path, layout, every_of(layout)[:: 7 if fast else 1], seconds=500)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=2, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@SEEDS
def test_hundreds_of_mutations_of_continuous_files(tmp_path_factory, layout, seed):
    chosen = drawn(every_of(layout), "", seed, 112)
    check_continuous(tmp_path_factory.mktemp("mutants"), layout, sorted(chosen, key=reaches_far), seconds=300)
