"""Clusters of tiles: as if each pair were looked at, and the same whichever pieces the tiles come in."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from glitchflow_plugin.signal.qtransform.loud_tiles import tile_duration
from glitchflow_plugin.signal.tile_clusters import Clusters, LoudTiles, TileClusters, cluster_tiles

FREQUENCIES, QS = (10.0, 14.0, 40.0, 160.0, 170.0), (5.0, 20.0)
LONGEST = float(tile_duration(FREQUENCIES[0], QS[-1]))
START = 1_400_000_000 * 10**9
TILES = st.lists(
    st.tuples(
        st.integers(0, 6 * 10**9), st.sampled_from(FREQUENCIES), st.sampled_from(QS), st.sampled_from([6.0, 7.0])
    ),
    min_size=1,
    max_size=40,
)


def loud(rows: list[tuple[int, float, float, float]]) -> LoudTiles:
    times, frequencies, qs, snrs = (np.array(column) for column in zip(*sorted(rows), strict=True))
    return LoudTiles(START + times.astype(np.int64), frequencies, qs, snrs, snrs / 10)


def told(clusters: Clusters) -> list[tuple[float, ...]]:
    one = clusters.loudest
    columns = (
        one.times - START,
        one.frequencies,
        one.qs,
        one.snrs,
        one.amplitudes,
        clusters.durations,
        clusters.bandwidths,
    )
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def by_pairs(tiles: LoudTiles, gap: float, in_frequency: bool) -> list[tuple[float, ...]]:
    """Each pair looked at; of a cluster the loudest, earliest, lowest."""
    one = Clusters.single(tiles)
    names = list(range(len(tiles)))
    for i in range(len(tiles)):
        for j in range(i):
            apart = max(one.starts[i], one.starts[j]) - min(one.ends[i], one.ends[j])
            meet = max(one.lows[i], one.lows[j]) <= min(one.highs[i], one.highs[j])
            if apart <= round(gap * 1e9) and (meet or not in_frequency):
                names = [names[i] if name == names[j] else name for name in names]
    found = []
    for name in set(names):
        own = [row for row in range(len(tiles)) if names[row] == name]
        best = min(own, key=lambda row: (-tiles.snrs[row], tiles.times[row], tiles.frequencies[row], tiles.qs[row]))
        length = (one.ends[own].max() - one.starts[own].min()) / 1e9
        width = one.highs[own].max() - one.lows[own].min()
        record = (tiles.times[best] - START, tiles.frequencies[best], tiles.qs[best], tiles.snrs[best])
        found.append((*map(float, record), float(tiles.amplitudes[best]), float(length), float(width)))
    return sorted(found)


@settings(max_examples=60, deadline=None)
@given(rows=TILES, gap=st.sampled_from([0.0, 0.1, 0.5]), in_frequency=st.booleans(), cuts=st.lists(st.integers(0, 40)))
def test_clusters_are_those_of_all_pairs_in_whatever_pieces(rows, gap, in_frequency, cuts):
    tiles = loud(rows)
    expected = by_pairs(tiles, gap, in_frequency)
    np.testing.assert_allclose(told(cluster_tiles(tiles, gap, in_frequency=in_frequency)), expected, rtol=1e-9)
    one = TileClusters(gap, LONGEST, in_frequency=in_frequency)
    pieces = np.split(np.arange(len(tiles)), sorted(cuts))
    found = Clusters.joined([*(one.add(tiles[piece]) for piece in pieces), one.finish()])
    assert told(found) == told(cluster_tiles(tiles, gap, in_frequency=in_frequency))


def test_two_glitches_at_one_time_are_two_in_frequency():
    rows = [(10**9, 10.0, 5.0, 9.0), (10**9, 160.0, 20.0, 8.0), (10**9 + 10**6, 170.0, 20.0, 7.0)]
    assert len(cluster_tiles(loud(rows), 0.1)) == 1
    apart = cluster_tiles(loud(rows), 0.1, in_frequency=True)
    assert apart.loudest.frequencies.tolist() == [10.0, 160.0]
    assert apart.loudest.snrs.tolist() == [9.0, 8.0]


def test_what_is_kept_between_pieces_does_not_grow_with_what_has_passed():
    clusters, draw = TileClusters(0.1, LONGEST, in_frequency=True), np.random.default_rng(0)
    kept, found = [], 0
    for piece in range(30):  # a channel that is loud without an end
        times = piece * 10**9 + np.sort(draw.integers(0, 10**9, 500))
        rows = [(int(time), float(draw.choice(FREQUENCIES[:2])), 5.0, 6.0) for time in times]
        found += len(clusters.add(loud(rows)))
        kept.append(len(clusters._runs.starts) + len(clusters._open))
    assert max(kept) <= 6
    assert found + len(clusters.finish()) == 1


def test_no_tiles_are_no_clusters():
    nothing = LoudTiles(np.zeros(0, np.int64), *[np.zeros(0)] * 4)
    for in_frequency in (False, True):
        assert not len(cluster_tiles(nothing, 0.1, in_frequency=in_frequency))
