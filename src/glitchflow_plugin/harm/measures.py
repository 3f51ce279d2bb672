"""What cleaning does to signals: they are injected into continuous strain, and looked for before and after.

The strain goes the way of streaming (`streaming.subtraction.subtract`) with and without the signals; the witnesses
stay as they are. Rivals have the same strain: the times at which the model subtracts are set to zero with a taper, or
the same is subtracted elsewhere. Where witnesses follow the strain, it is tried what comes of it if they hold the
signals too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from glitchflow_plugin.data.event_files import Channel
from glitchflow_plugin.harm.ground import Ground, make_ground
from glitchflow_plugin.harm.injections import (
    KINDS,
    HarmSettings,
    Injection,
    Kind,
    check_power,
    distance_to,
    draw_pass,
    waveform,
)
from glitchflow_plugin.harm.safety import Follower, Leak, followers_of, measured_relation
from glitchflow_plugin.harm.ways import believed, searched_ways
from glitchflow_plugin.products.folder import SeenGain
from glitchflow_plugin.signal.matched_filter import Recovered, Weighted, match, recovered
from glitchflow_plugin.streaming.subtraction import Subtraction, at_own_rate, subtract
from glitchflow_plugin.streaming.windows import StreamModel, StreamSettings, prepare
from glitchflow_plugin.types.arrays import Series

REACH = 0.1
"""How far from its time a signal is looked for, s."""

STRETCH = 16.0
"""Signals in one stretch of so long, s, are no independent cases."""

_SETTLED = 2.0
"""Time beside a waveform in which its band-pass dies out, s."""


@dataclass(frozen=True)
class JudgedSignal:
    """An injection and what was found of it.

    Attributes:
        gps: GPS time of the merger, or of the middle, s.
        kind: Kind of signal.
        parameters: As JSON.
        snr: Optimal SNR in the quiet noise.
        distance: To the nearest glitch from the part that holds nine tenths of the SNR², s; None without glitches.
        group: What it shares with others: its nearest glitch, if that is near, or a stretch of time.
        witness: Witnesses that hold a copy of it, as they follow the strain; empty: none does.
        found: SNR by way (`harm_ways.WAYS`).
        chi_squared: Reduced, by way.
        reweighted: SNR that is punished for chi-squared, by way.
        shift: Time at which it is found less that at which it is, s, by way.
        empty: SNR of what is found there, before and after, in the strain without signals.
        empty_reweighted: The same, punished for chi-squared.
        match: Overlap of the signal with what cleaning leaves of it, 0 to 1.
        match_shift: How much later that lies, s.
        kept: Share of its SNR that cleaning leaves, without noise.
    """

    gps: float
    kind: Kind
    parameters: str
    snr: float
    distance: float | None
    group: str
    witness: str
    found: Mapping[str, float]
    chi_squared: Mapping[str, float]
    reweighted: Mapping[str, float]
    shift: Mapping[str, float]
    empty: Mapping[str, float]
    empty_reweighted: Mapping[str, float]
    match: float
    match_shift: float
    kept: float


@dataclass(frozen=True)
class BlockFound:
    """What came of a block.

    Attributes:
        judged: The injections.
        glitches: Times of what is loud, GPS s.
        followers: Witnesses in use that follow the strain; None where that could not be measured.
        gains: What the strain without signals says of the witnesses where none is stopped.
        problem: Why there is nothing; empty where there is.
    """

    judged: tuple[JudgedSignal, ...] = ()
    glitches: tuple[float, ...] = ()
    followers: tuple[Follower, ...] | None = None
    gains: tuple[SeenGain, ...] = ()
    problem: str = ""


@dataclass(frozen=True, eq=False)
class Trial:
    """A block in which signals are tried.

    Attributes:
        channels: As recorded, the strain in float64.
        segment: Start and end of the science segment, GPS s.
        ground: The block without signals.
        stream: How the model is used.
        settings: Which signals, how they are looked for.
        stopped: By witness the GPS time, s, from which on the closed loop leaves it out.
    """

    channels: Mapping[str, Channel]
    segment: tuple[float, float]
    ground: Ground
    stream: StreamSettings
    settings: HarmSettings
    stopped: Mapping[str, float]

    @property
    def strain(self) -> Channel:
        """As recorded."""
        return self.channels[self.ground.model.target.name]

    def subtraction(self, channels: Mapping[str, Channel]) -> Subtraction:
        """What the model says of the block."""
        ground = self.ground
        return subtract(channels, ground.model, ground.span, self.segment, self.stream, stopped=self.stopped)

    def recorded(self, found: Subtraction) -> Channel:
        """What is subtracted from the strain in the block, at its own rate."""
        return _piece(self.strain, found.glitch, self.ground.span)


@dataclass(frozen=True, eq=False)
class _Signal:
    """An injection as samples: at the strain's own rate, as the strain is conditioned, and as the filter takes it."""

    injection: Injection
    recorded: Channel
    conditioned: Series
    template: Weighted


@dataclass(frozen=True, eq=False)
class _Untouched:
    """A block without signals: what is subtracted, as the strain is conditioned, the strain before and after, gains."""

    subtracted: Series
    searched: Mapping[str, Weighted]
    gains: tuple[SeenGain, ...]


def judge_block(
    channels: Mapping[str, Channel],
    model: StreamModel,
    times: tuple[tuple[float, float], tuple[float, float]],
    stream: StreamSettings,
    settings: HarmSettings,
    *,
    stopped: Mapping[str, float] | None = None,
) -> BlockFound:
    """Inject signals into a block of strain and look for them before and after cleaning.

    Args:
        channels: As for `stream.subtract`.
        model: Twin and recipes.
        times: Start and end of the block, and of the science segment, GPS s.
        stream: How the model is used.
        settings: Which signals, how they are looked for.
        stopped: By witness the GPS time, s, from which on the closed loop leaves it out.

    Raises:
        ConfigurationError: A kind of signal has no power in the band, or the stride is too long for the windows.
    """
    span, segment = times
    stopped = stopped or {}
    target = model.target.name
    # whatever the recording is kept in, a signal is smaller than what float32 rounds it to
    strain = replace(channels[target], series=channels[target].series.astype(np.float64))
    channels = {**channels, target: strain}
    prepared = prepare(channels, model, span, segment, stream)
    try:
        ground = make_ground(prepared, model, span, settings)
    except ValueError as error:
        return BlockFound(problem=f"the noise cannot be measured: {error}")
    trial = Trial(channels, segment, ground, stream, settings, stopped)
    passes = _passes(trial)
    untouched = _untouched(trial)
    glitches = tuple(ground.glitches.tolist())
    if not passes:
        return BlockFound(glitches=glitches, gains=untouched.gains, problem="no signal has room in it")
    judged = [one for injections in passes for one in _judge_pass(trial, injections, untouched)]
    followers = None
    relation = measured_relation(prepared, ground)
    if relation is not None:
        # one that is stopped can do no harm
        followers = tuple(one for one in followers_of(relation, model) if stopped.get(one.name, np.inf) > span[0])
        names = tuple(one.name for one in followers)
        leak = Leak(names, relation, prepared)
        judged += _judge_copies(trial, passes[0], untouched, leak)
    return BlockFound(tuple(judged), glitches, followers, untouched.gains)


def _untouched(trial: Trial) -> _Untouched:
    """The block without signals, once for all passes."""
    ground = trial.ground
    found = trial.subtraction(trial.channels)
    subtracted = ground.at_common_rate(trial.recorded(found))
    empty = {"before": ground.strain, "after": ground.strain - subtracted}
    searched = {way: ground.weighted(series, trial.settings) for way, series in empty.items()}
    return _Untouched(subtracted, searched, found.gains)


def _passes(trial: Trial) -> list[list[Injection]]:
    """The signals of each pass: short ones together, and long ones, which leave no room to others, by themselves."""
    ground, settings = trial.ground, trial.settings
    short: list[Kind] = [kind for kind in KINDS if kind in settings.kinds and kind != "long"]
    long: list[Kind] = ["long"] if "long" in settings.kinds else []
    found: list[list[Injection]] = []
    for number in range(settings.passes):
        for kinds in (short, long):
            if kinds:
                rng = np.random.default_rng([settings.seed, round(ground.span[0]), number, len(kinds), kinds == long])
                found.append(draw_pass(kinds, ground.free(settings), ground.glitches, rng, settings, band=ground.band))
    return [each for each in found if each]


def _judge_copies(
    trial: Trial, injections: Sequence[Injection], untouched: _Untouched, leak: Leak
) -> list[JudgedSignal]:
    """What comes of signals of which witnesses hold copies: of all together, and of each where that does harm."""
    if not leak.witnesses:
        return []
    together = _judge_pass(trial, injections, untouched, leak)
    lost = 1 - np.median([one.kept for one in together])
    if len(leak.witnesses) == 1 or lost <= trial.settings.unsafe_loss:
        return together
    each = [replace(leak, witnesses=(name,)) for name in leak.witnesses]
    return together + [found for one in each for found in _judge_pass(trial, injections, untouched, one)]


def _judge_pass(
    trial: Trial, injections: Sequence[Injection], untouched: _Untouched, leak: Leak | None = None
) -> list[JudgedSignal]:
    """Inject some signals together, clean, and look for each.

    Args:
        trial: The block.
        injections: The signals.
        untouched: The block without them.
        leak: Witnesses that hold copies.
    """
    ground = trial.ground
    signals = [_signal(trial, one) for one in injections]
    channels = dict(trial.channels)
    for one in signals:
        channels[trial.strain.name] = added(channels[trial.strain.name], one.recorded)
    together = np.sum([one.conditioned for one in signals], axis=0)
    if leak is not None:
        for name in leak.witnesses:
            copy = leak.copy(together, channels[name], ground)
            channels[name] = channels[name] if copy is None else added(channels[name], copy)
    taken = trial.recorded(trial.subtraction(channels))
    subtracted = ground.at_common_rate(taken)
    seen = _Seen(
        searched_ways(ground, ground.strain + together, believed(taken), subtracted, trial.settings),
        untouched.searched,
        subtracted - untouched.subtracted,
        "" if leak is None else ", ".join(leak.witnesses),
    )
    return [_judged(trial, one, seen) for one in signals]


def _signal(trial: Trial, injection: Injection) -> _Signal:
    """A signal of the SNR that was drawn, at the sample of the common rate nearest to its time."""
    ground, rate = trial.ground, trial.ground.rate
    made = waveform(injection.source, rate, trial.settings)
    first = round((injection.gps - made.reference) * rate)
    beside = round(_SETTLED * rate)
    low, high = first - beside, first + len(made.series) + beside
    low, high = max(low, ground.first), min(high, ground.first + len(ground.strain))
    common = np.zeros(high - low)
    begin, stop = max(first, low), min(first + len(made.series), high)
    common[begin - low : stop - low] = made.series[begin - first : stop - first]
    span = low / rate, high / rate
    own = at_own_rate(common / np.abs(common).max(), low, trial.strain, span, rate=rate, high=ground.highest)
    recorded = _piece(trial.strain, own, span)
    conditioned = ground.at_common_rate(recorded)
    template = ground.weighted(conditioned, trial.settings)
    check_power(injection.source.kind, template.norm, ground.whole_norm(conditioned, trial.settings), ground.band)
    scale = injection.snr / template.norm
    return _Signal(
        replace(injection, gps=first / rate + made.reference),
        replace(recorded, series=recorded.series * scale),
        conditioned * scale,
        replace(template, values=template.values * scale),
    )


@dataclass(frozen=True, eq=False)
class _Seen:
    """What signals of a pass are looked for in.

    Attributes:
        searched: By way the strain with all signals.
        empty: Before and after, the strain without any.
        changed: What is subtracted with the signals less what is subtracted without, as the strain is conditioned.
        witness: Which hold copies.
    """

    searched: Mapping[str, Weighted]
    empty: Mapping[str, Weighted]
    changed: Series
    witness: str


def _judged(trial: Trial, signal: _Signal, seen: _Seen) -> JudgedSignal:
    """What is found of one signal."""
    ground, one = trial.ground, signal.injection
    found = {name: recovered(series, signal.template, REACH) for name, series in seen.searched.items()}
    nothing = {name: recovered(series, signal.template, REACH) for name, series in seen.empty.items()}
    # what cleaning does to other signals does not count here
    start, stop = ((edge - ground.span[0]) * ground.rate for edge in one.span)
    own = np.zeros(len(seen.changed))
    own[max(round(start - ground.rate), 0) : round(stop + ground.rate)] = 1.0
    left = signal.template - ground.weighted(seen.changed * own, trial.settings)
    alike, later = match(signal.template, left, REACH)
    begin, end = ground.loud(signal.template)
    distance = float(distance_to(ground.glitches, np.array([begin]), np.array([end]))[0])
    return JudgedSignal(
        gps=one.gps,
        kind=one.source.kind,
        parameters=one.told,
        snr=one.snr,
        distance=distance if np.isfinite(distance) else None,
        group=_group(ground, one.gps, distance, trial.settings.quiet),
        witness=seen.witness,
        found=_each(found, "snr"),
        chi_squared=_each(found, "reduced_chi_squared"),
        reweighted=_each(found, "reweighted_snr"),
        shift=_each(found, "shift"),
        empty=_each(nothing, "snr"),
        empty_reweighted=_each(nothing, "reweighted_snr"),
        match=alike,
        match_shift=later,
        kept=alike * left.norm / signal.template.norm,
    )


def _each(found: Mapping[str, Recovered], name: str) -> dict[str, float]:
    return {way: float(getattr(one, name)) for way, one in found.items()}


def _group(ground: Ground, gps: float, distance: float, quiet: float) -> str:
    """Signals at one glitch, or in one stretch of noise, are no independent cases."""
    if distance < quiet:
        nearest = ground.glitches[np.abs(ground.glitches - gps).argmin()]
        return f"glitch {nearest:.2f}"
    return f"stretch {gps // STRETCH * STRETCH:.0f}"


def _piece(channel: Channel, series: Series, span: tuple[float, float]) -> Channel:
    """Samples of a recording from the first in a span on, with other values."""
    first = int(np.ceil((span[0] - channel.t0) * channel.sample_rate - 1e-6))
    return replace(channel, series=series, t0=channel.t0 + first / channel.sample_rate)


def added(channel: Channel, addition: Channel) -> Channel:
    """A recording with something added to some of its samples; where it has no data it stays as it is.

    Args:
        channel: The recording.
        addition: What is added: another recording, of its rate and on its samples.
    """
    first = round((addition.t0 - channel.t0) * channel.sample_rate)
    series = channel.series.astype(np.float64)
    low, high = max(first, 0), min(first + len(addition.series), len(series))
    series[low:high] += addition.series[low - first : high - first]
    return replace(channel, series=series)
