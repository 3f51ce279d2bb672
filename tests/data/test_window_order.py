import numpy as np
import pytest

from glitchflow_plugin.data.window_order import WindowOrder, WindowPlaces, balancing_weights, draw, read_labels
from glitchflow_plugin.errors import ConfigurationError, FormatError


def make_places(num_events=200, windows=5, shard_size=10, event_bytes=100):
    event = np.repeat(np.arange(num_events), windows)
    glitch = np.arange(len(event)) % windows == 0
    return WindowPlaces(event=event, shard=event // shard_size, glitch=glitch, event_bytes=event_bytes)


def test_seed_and_epoch_decide_the_order():
    order = WindowOrder(make_places(), seed=3, block_bytes=4000)
    assert (order(0) == WindowOrder(make_places(), seed=3, block_bytes=4000)(0)).all()
    assert sorted(order(0)) == list(range(1000))
    assert (order(0) != order(1)).any()
    assert (order(0) != WindowOrder(make_places(), seed=4, block_bytes=4000)(0)).any()


def test_without_shuffling_it_is_that_of_the_index():
    assert (WindowOrder(make_places(4), shuffle=False)(7) == np.arange(20)).all()


def test_what_fits_is_shuffled_as_one():
    order = WindowOrder(make_places(), seed=1, block_bytes=200 * 100)(2)
    assert (order == np.random.default_rng([1, 2]).permutation(1000)).all()


def test_events_in_use_fit_the_block():
    places = make_places()
    events = places.event[WindowOrder(places, block_bytes=40 * 100)(0)]
    first = {event: place for place, event in reversed(list(enumerate(events)))}
    last = {event: place for place, event in enumerate(events)}
    in_use = [sum(first[event] <= place <= last[event] for event in first) for place in range(len(events))]
    assert max(in_use) <= 40


def test_a_batch_holds_windows_of_several_shards():
    places = make_places()
    shards = places.shard[WindowOrder(places, block_bytes=40 * 100)(0)]
    assert min(len(set(shards[start : start + 16])) for start in range(0, 900, 16)) >= 3


def test_a_shard_larger_than_the_block_is_cut():
    places = make_places(num_events=30, shard_size=15)
    events = places.event[WindowOrder(places, block_bytes=3 * 100)(0)]
    assert sorted(events) == sorted(places.event)
    assert all(len(set(events[start : start + 15])) == 3 for start in range(0, 150, 15))


def test_draws_come_as_often_as_their_weights_want():
    weights = np.array([1.0, 2.0, 0.0, 5.0, 4.0] * 20)
    counts = np.bincount(draw(weights, np.random.default_rng(0)), minlength=100)
    assert counts.sum() == 100
    assert (np.abs(counts - weights / weights.sum() * 100) < 1).all()
    mean = np.mean([np.bincount(draw(weights, np.random.default_rng(seed)), minlength=100) for seed in range(2000)], 0)
    np.testing.assert_allclose(mean, weights / weights.sum() * 100, atol=0.06)
    with pytest.raises(ConfigurationError, match="weights"):
        draw(np.zeros(3), np.random.default_rng(0))


def test_events_and_classes_count_the_same():
    # event 0 has nine windows, event 1 has one; the second is of a rare class
    event = np.array([0] * 9 + [1])
    ids = np.array(["a"] * 9 + ["b"])
    glitch = np.array([True] * 3 + [False] * 6 + [True])
    places = WindowPlaces(event=event, shard=np.zeros(10, int), glitch=glitch, event_bytes=1)
    assert balancing_weights(places, "none", ids) is None
    by_event = balancing_weights(places, "event", ids)
    assert by_event[:9].sum() == pytest.approx(by_event[9])
    by_class = balancing_weights(places, "class", ids, {"a": "blip", "b": "whistle"})
    assert by_class[:3].sum() == pytest.approx(by_class[3:9].sum()) == pytest.approx(by_class[9])
    without = balancing_weights(places, "class", ids)
    assert without[glitch].sum() == pytest.approx(without[~glitch].sum())
    drawn = WindowOrder(places, seed=1, weights=by_event)
    assert 3 <= np.mean([(drawn(epoch) == 9).sum() for epoch in range(200)]) <= 7
    assert (drawn(3) == WindowOrder(places, seed=1, weights=by_event)(3)).all()
    with pytest.raises(ConfigurationError, match="none of the training events"):
        balancing_weights(places, "class", ids, {"c": "blip"})
    with pytest.raises(ConfigurationError, match="none, event or class"):
        balancing_weights(places, "clas", ids)  # type: ignore[arg-type]


def test_labels_come_from_a_table(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("event_id,label,snr\n0012,blip,3\nb,whistle,4\n", encoding="utf-8")
    assert read_labels(path) == {"0012": "blip", "b": "whistle"}
    path.write_text("event,label\na,blip\n", encoding="utf-8")
    with pytest.raises(FormatError, match="event_id"):
        read_labels(path)
    path.write_text("event_id,label\na,blip\na,tomte\n", encoding="utf-8")
    with pytest.raises(FormatError, match="more than once"):
        read_labels(path)
    with pytest.raises(FormatError, match="cannot be read"):
        read_labels(tmp_path / "nothing.csv")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("event_id,label\na,blip,\nb,tomte,\n", {"a": "blip", "b": "tomte"}),
        ("event_id;label\na;blip\n", {"a": "blip"}),
        ("\ufeffevent_id,label\na,NA\nb,\n", {"a": "NA", "b": ""}),
        ("number,event_id,label\n1,a,blip\n", {"a": "blip"}),
        ("event_id,label\n1,a,blip\n", "got 3"),
        ("event_id,label\na,blip\nb\n", "got 1"),
        ("event_id,label,snr\na,blip,8,5\n", "got 4"),
        ("event_id,label,label\na,blip,tomte\n", "more than once"),
    ],
)
def test_labels_are_right_or_refused_never_of_another_column(tmp_path, text, wanted):
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    if isinstance(wanted, dict):
        assert read_labels(path) == wanted
    else:
        with pytest.raises(FormatError, match=rf"labels: .*{wanted}"):
            read_labels(path)


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigurationError, match="without quotes"):
        WindowOrder(make_places(2), shuffle="False")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="shuffle_train"):
        WindowOrder(make_places(2), shuffle=False, weights=np.ones(10))
    with pytest.raises(FormatError, match="one event"):
        WindowPlaces(event=np.zeros(3), shard=np.zeros(2), glitch=np.zeros(3), event_bytes=1)
