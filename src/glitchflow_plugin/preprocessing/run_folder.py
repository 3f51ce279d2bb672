"""A proposal as files: the run folder's configuration, with the values that fit the data and why."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np

from glitchflow_plugin.data.files import atomic_path, read_text
from glitchflow_plugin.data.readers.triggers import write_triggers
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.preprocessing.proposal import Proposal, ProposedData
from glitchflow_plugin.preprocessing.survey import Survey

_DATASETS = re.compile(r"^datasets:.*\n(?:[ ].*\n)+", re.MULTILINE)
_COMMENTS = {
    "minf": "band, Hz: zero phase, designed at each channel's own rate",
    "maxf": "at most half of sr; slow channels are used up to nine tenths of their Nyquist frequency",
    "sr": "common sample rate, Hz",
    "len": "s about the trigger",
    "batch": "events a worker holds in memory, and in a file of the event set",
    "whiten": "the same in all data sets",
    "crop_jitter": "s by which the middle of these may lie beside the trigger, drawn by event id",
    "crop_seed": "of the drawing",
}


def write_proposal(folder: Path, proposal: Proposal, run_name: str) -> list[Path]:
    """Put a proposal into a run folder that has the default configuration.

    Args:
        folder: The run folder.
        proposal: What to write.
        run_name: The run's name, for config.yaml.

    Returns:
        The files that were written anew.

    Raises:
        ConfigurationError: A file of the configuration lacks a key that must be set.
    """
    conf = folder / "conf"
    written = []

    def write(path: Path, text: str) -> None:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        written.append(path)

    triggers = proposal.triggers
    if proposal.cuts:
        triggers = "conf/triggers.csv"
        write_triggers(folder / triggers, sorted(proposal.cuts.items(), key=lambda cut: (cut[1], cut[0])))
        written.append(folder / triggers)
    paths = []
    for position, data in enumerate(proposal.data):
        path = data.path or f"conf/data-{position + 1}.cache"
        if data.path is None:
            write(folder / path, "".join(f"{file}\n" for file in data.files))
        paths.append(path)
    write(conf / "datasets.yaml", datasets_text(read_text(conf / "datasets.yaml"), proposal, paths, triggers))
    for name, values in proposal.changes.items():
        path = conf / f"{name}.yaml"
        write(path, with_values(read_text(path), values, path))
    config = folder / "config.yaml"
    write(config, with_values(read_text(config), {"run_name": run_name}, config))
    return written


def with_values(text: str, values: Mapping[str, object], path: Path | str = "") -> str:
    r"""YAML text with other values for some top-level keys; the comments stay.

    Args:
        text: A file with each key and its value on one line.
        values: By key.
        path: The file, for messages.

    Raises:
        ConfigurationError: A key is not there.

    >>> with_values("a: 1     # s\nb: 2\n", {"a": 0.5})
    'a: 0.5   # s\nb: 2\n'
    """
    for key, value in values.items():
        line = re.compile(rf"^{re.escape(key)}:(?P<old>[^#\n]*)", re.MULTILINE)
        found = line.search(text)
        if found is None:
            raise ConfigurationError(f"{path} has no key {key} to set to {value}. Take the file as it comes.")
        new = f" {_yaml(value)}"
        rest = text[found.end() : found.end() + 1]
        new = new.ljust(max(len(found["old"]), len(new) + 1)) if rest == "#" else new
        text = f"{text[: found.start('old')]}{new}{text[found.end() :]}"
    return text


def datasets_text(template: str, proposal: Proposal, paths: list[str], triggers: str | None) -> str:
    """Content of datasets.yaml.

    Args:
        template: The file as it comes; what is not the list of data sets stays.
        proposal: What to write.
        paths: `path` of each entry.
        triggers: Path of the table of triggers, for continuous data.

    Raises:
        ConfigurationError: The template has no list of data sets.
    """
    lines = ["datasets:"]
    for data, path in zip(proposal.data, paths, strict=True):
        lines += _entry(proposal, data, path, triggers)
    text, count = _DATASETS.subn(lambda _: "\n".join(lines) + "\n", template, count=1)
    if not count:
        raise ConfigurationError("conf/datasets.yaml has no list `datasets` to replace. Take the file as it comes.")
    return text


_MOST_ROWS = 40
"""Channels in the table that are used, and that are not; datasets.yaml has all."""


def data_lines(survey: Survey) -> Iterator[str]:
    """What was found: a line for each data set and one for the events."""
    for seen in survey.data:
        line = f"{seen.path or seen.files[0].parent}: {seen.format}, {len(seen.files)} file(s)"
        if seen.stretches:
            missing = sum(later[0] - earlier[1] for earlier, later in pairwise(seen.stretches))
            line += f", GPS {seen.stretches[0][0]:.3f} to {seen.stretches[-1][1]:.3f}"
            line += f" with {len(seen.stretches) - 1} gap(s), {missing:.0f} s in all" if missing else " without a gap"
        yield line
    times = sorted(survey.events.values())
    source = f" of {survey.triggers}" if survey.triggers and survey.cuts else ""
    yield f"{len(times)} event(s){source}, GPS {times[0]:.3f} to {times[-1]:.3f}"


def channel_rows(survey: Survey, proposal: Proposal) -> list[list[str]]:
    """Table of the channels: what there is, and what becomes of it."""
    rows = [["channel", "rate", "unit", "events", "s about it", "use"]]
    used = sorted(proposal.fit.bands, key=lambda name: (name != proposal.target, name))
    rest = sorted(set(proposal.channels) - set(used))
    for name in (*used[:_MOST_ROWS], *rest[:_MOST_ROWS]):
        channel, reach = proposal.channels[name], proposal.reaches.get(name)
        if name in proposal.fit.bands:
            low, high = proposal.fit.bands[name]
            use = f"{'target, ' * (name == proposal.target)}{low:g}-{high:g} Hz"
            use += ", but sees the strain itself: scan.unsafe" * (name in proposal.unsafe)
        else:
            use = f"no: {proposal.fit.left_out.get(name, 'no data')}"
        rate = "-" if channel.sample_rate is None else f"{channel.sample_rate:g} Hz"
        there = f"{np.count_nonzero(channel.lengths)}/{len(survey.events)}"
        rows.append([name, rate, channel.unit or "-", there, f"{reach.length:.2f}" if reach else "-", use])
    more = max(len(used) - _MOST_ROWS, 0), max(len(rest) - _MOST_ROWS, 0)
    if any(more):
        rows.append(["...", "", "", "", "", f"{more[0]} more in use, {more[1]} more not: conf/datasets.yaml"])
    return rows


def setting_lines(proposal: Proposal) -> Iterator[str]:
    """What was decided, and what the user should know."""
    settings = proposal.processing
    continuous = any(data.continuous for data in proposal.data)
    cut = f", cut from {proposal.segment:g} s about each trigger" if continuous else ""
    yield (
        f"Proposed: {settings.len:g} s at {settings.sr:g} Hz{cut}, band {settings.minf:g}-{settings.maxf:g} Hz; the "
        f"slowest channel in use needs {max(proposal.fit.needed.values()):.2f} s about a trigger."
    )
    for name, values in proposal.changes.items():
        changed = ", ".join(f"{key}: {_yaml(value)}" for key, value in values.items())
        yield f"conf/{name}.yaml: {changed}"
    yield from (f"Note: {remark}" for remark in proposal.remarks)


def _entry(proposal: Proposal, data: ProposedData, path: str, triggers: str | None) -> Iterator[str]:
    yield f"  - path: {_yaml(path)}"
    yield f"    format: {data.format}"
    if proposal.target in data.channels:
        yield f"    target: {_yaml(proposal.target)}   # the strain channel"
    yield "    ch_list:"
    width = max(len(_yaml(name)) for name in data.channels)
    for name in data.channels:
        low, high = proposal.fit.bands[name]
        yield f"      - {_yaml(name).ljust(width)}   # {low:g}-{high:g} Hz"
    if data.left_out:
        yield "    # Not used, and why:"
        for name, why in data.left_out.items():
            yield f"    #   {_yaml(name)}: {_printable(' '.join(why.split()))}"
    if data.continuous:
        yield f"    segment: {proposal.segment:g}   # s cut about each trigger: len, room for filters, and noise"
        if triggers:
            yield "    triggers:"
            yield f"      path: {_yaml(triggers)}"
            yield "      select: {}     # {snr: [8, null], ...}: what the columns of the table must hold"
            yield "      cluster: null  # s, such as 0.1: of triggers this near to each other the loudest stays"
            yield "      segments: null # science segments outside which nothing is taken: a file that gwpy reads"
    yield "    processing:"
    for key, value in asdict(proposal.processing).items():
        yield f"      {f'{key}: {_yaml(value)}'.ljust(16)}   # {_COMMENTS[key]}"


def _yaml(value: object) -> str:
    """A value as YAML on one line."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"{value:.1f}"
    # the escapes of JSON are among those of YAML; ${ would refer to another key, and hydra looks for such keys twice
    return _printable(json.dumps(value, ensure_ascii=False).replace("${", "\\" * 6 + "${"))


def _printable(text: str) -> str:
    """Text without the characters that YAML refuses, by YAML's own escapes."""
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in text)
