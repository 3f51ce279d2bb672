"""Vetoes in the formats that searches read: written whole, read back with each field that a format can hold.

What a format cannot hold is told by `dropped`; times are kept to the nanosecond by all of them, but for veto definers,
which hold the span of a flag and no segments. gwpy's own readers give the times of LIGO_LW and segwizard files back
exactly as `LIGOTimeGPS`, not as floats.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float

from glitchflow_plugin.data.apart import apart, shown
from glitchflow_plugin.data.files import atomic_path, new_hdf5, read_text
from glitchflow_plugin.errors import ConfigurationError, FormatError, nearest
from glitchflow_plugin.products.veto_flag import VetoFlag
from glitchflow_plugin.types.intervals import union

VetoFormat: TypeAlias = Literal["hdf5", "json", "ligolw", "segwizard", "gates", "veto_definer", "dqsegdb"]
"""Names of the formats in the configuration."""

KNOWN = "-known"
"""What the file with the known segments has at the end of its name, where a format holds one list of segments."""

GATE_TAPER = 0.25
"""Length of the taper on either side of a gate, s: PyCBC's own choice for its automatic gates."""

_BILLION = 1_000_000_000
_NANO = Decimal("1e-9")
_HDF5_ROW = [(name, "<i8") for name in ("start_time", "start_time_ns", "end_time", "end_time_ns")]
_TIMES_ALONE = ("name", "known", "isgood", "padding", "description", "label", "category")
"""What a file of times alone loses."""


@dataclass(frozen=True)
class Format:
    """A way to write a flag.

    Attributes:
        suffix: Ending of the file.
        lost: Fields of a flag that it cannot hold.
        write: Writes a flag to a path.
        read: Reads one; None where the file holds no segments.
        known_beside: Whether the known segments, for which there is no room, go into a second file.
    """

    suffix: str
    lost: tuple[str, ...]
    write: Callable[[VetoFlag, Path], None]
    read: Callable[[Path], VetoFlag] | None
    known_beside: bool = False


def write_flag(flag: VetoFlag, folder: Path | str, stem: str, kind: str) -> list[Path]:
    """Write a flag in one format, each file whole or not at all.

    Args:
        flag: The flag.
        folder: Where to; made if missing.
        stem: File name without its ending.
        kind: One of `FORMATS`.

    Returns:
        What was written: one file, or two where the known segments have their own.

    Raises:
        ConfigurationError: There is no such format.
    """
    chosen = _format(kind)
    parts = [(stem, flag)]
    if chosen.known_beside:
        parts.append((stem + KNOWN, VetoFlag(flag.name, active=flag.known, known=flag.known)))
    paths = []
    for name, part in parts:
        path = Path(folder) / f"{name}{chosen.suffix}"
        with atomic_path(path) as temporary:
            chosen.write(part, temporary)
        paths.append(path)
    return paths


def read_flag(path: Path | str, kind: str, *, name: str = "X1:VETO:1") -> VetoFlag:
    """Read a flag back.

    Args:
        path: The file; of two, that of the active segments.
        kind: Its format.
        name: `IFO:NAME:VERSION`, where the file does not hold it.

    Raises:
        ConfigurationError: There is no such format, or it holds no segments.
        FormatError: The file cannot be read, or is another kind of file.
    """
    chosen, path = _format(kind), Path(path)
    if chosen.read is None:
        raise ConfigurationError(f"files of the kind {kind} hold no segments. Read {sorted(_READABLE)}.")
    if "known" not in chosen.lost:
        return chosen.read(path)
    active = known = chosen.read(path).active
    beside = path.with_name(path.name.removesuffix(chosen.suffix) + KNOWN + chosen.suffix)
    if chosen.known_beside and beside.is_file():
        known = chosen.read(beside).active
    return VetoFlag(name, active=active, known=known)


def is_readable(kind: str) -> bool:
    """Whether files of a format hold segments that `read_flag` gives back."""
    return _format(kind).read is not None


def dropped(flag: VetoFlag, kind: str) -> tuple[str, ...]:
    """Fields of this flag that a format loses: those that say something and that it cannot hold."""
    chosen, empty = _format(kind), VetoFlag(flag.name)
    lost = (one for one in chosen.lost if one != "known" or not chosen.known_beside)
    return tuple(one for one in lost if one == "name" or not _same(getattr(flag, one), getattr(empty, one)))


def _same(one: object, other: object) -> bool:
    return np.array_equal(one, np.asarray(other)) if isinstance(one, np.ndarray) else one == other


def _format(kind: str) -> Format:
    if kind not in FORMATS:
        raise ConfigurationError(
            f"{kind!r} is no format of vetoes.{nearest(kind, FORMATS)} Expected some of {', '.join(FORMATS)}."
        )
    return FORMATS[kind]


# HDF5 and segwizard as gwpy has them, written without it: importing it takes longer than all the rest.


def _write_hdf5(flag: VetoFlag, path: Path) -> None:
    write_hdf5([flag], path)


def write_hdf5(flags: Iterable[VetoFlag], path: Path) -> None:
    """Write flags as one file of gwpy's, whole or not at all."""
    with new_hdf5(path, seal=False) as file:
        for flag in flags:
            group = file.create_group(flag.name)
            for name in ("active", "known"):
                ends = [[divmod(_nanoseconds(time), _BILLION) for time in pair] for pair in getattr(flag, name)]
                table = np.array([(*start, *end) for start, end in ends], dtype=_HDF5_ROW)
                group.create_dataset(name, data=table)
            for name in ("name", "label", "category", "description", "isgood", "padding"):
                if (value := getattr(flag, name)) is not None:
                    group.attrs[name] = value


def _write_segwizard(flag: VetoFlag, path: Path) -> None:
    write_segwizard(flag.active, path)


def write_segwizard(times: Float[np.ndarray, "segment 2"], path: Path) -> None:
    """Write times (GPS s) as segwizard text, whole or not at all."""
    lines = ["# seg\tstart\tstop\tduration\n"]
    for number, (start, end) in enumerate(times):
        first, last = _nanoseconds(start), _nanoseconds(end)
        words = (f"{(time * _NANO).normalize():f}" for time in (first, last, last - first))
        lines.append("\t".join((str(number), *words)) + "\n")
    with atomic_path(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


# Through gwpy: JSON and LIGO_LW; reading all four.


def _write_json(flag: VetoFlag, path: Path) -> None:
    flag.to_gwpy().write(str(path), format="json")


def _write_ligolw(flag: VetoFlag, path: Path) -> None:
    flag.to_gwpy().write(str(path), format="ligolw", overwrite=True)


@apart
def _read_through_gwpy(path: Path, kind: str) -> VetoFlag:
    from gwpy.segments import DataQualityDict, DataQualityFlag, SegmentList  # noqa: PLC0415  # takes seconds

    if kind == "segwizard":
        found = union([(float(start), float(end)) for start, end in SegmentList.read(str(path), format=kind)])
        return VetoFlag("X1:VETO:1", active=found, known=found)
    if kind == "json":
        return VetoFlag.from_gwpy(DataQualityFlag.read(str(path), format=kind))
    flags = DataQualityDict.read(str(path), format=kind)
    if len(flags) != 1:
        raise FormatError(f"{shown(path)}: expected a file of one flag, got {len(flags)}: {list(flags)[:10]}.")
    [flag] = flags.values()
    if kind == "ligolw":
        flag.isgood = False  # not in the file: gwpy takes every flag for one of good times, vetoes are of bad ones
    return VetoFlag.from_gwpy(flag)


def _read_hdf5(path: Path) -> VetoFlag:
    return _read_through_gwpy(path, "hdf5")


def _read_json(path: Path) -> VetoFlag:
    return _read_through_gwpy(path, "json")


def _read_ligolw(path: Path) -> VetoFlag:
    return _read_through_gwpy(path, "ligolw")


def _read_segwizard(path: Path) -> VetoFlag:
    return _read_through_gwpy(path, "segwizard")


# Gates: `gps half_window taper`, GPS at the centre, as PyCBC's --gating-file takes them.


def _write_gates(flag: VetoFlag, path: Path) -> None:
    lines = []
    for start, end in flag.active:
        first, last = _nanoseconds(start), _nanoseconds(end)
        lines.append(f"{(first + last) * _NANO / 2:f} {(last - first) * _NANO / 2:f} {GATE_TAPER:g}\n")
    path.write_text("".join(lines), encoding="utf-8")


def _read_gates(path: Path) -> VetoFlag:
    pairs = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.split() or line.lstrip().startswith("#"):
            continue
        try:
            centre, half, _ = (Decimal(word) for word in line.split())
            pairs.append((float(centre - half), float(centre + half)))
        except (ValueError, ArithmeticError):
            raise FormatError(
                f"{shown(path)}, line {number}: expected `gps half_window taper`, got {line.strip()!r}."
            ) from None
    found = union(pairs)
    return VetoFlag("X1:VETO:1", active=found, known=found)


def _nanoseconds(gps: float) -> int:
    return round(Decimal(gps) / _NANO)


# Veto definers: which flags to use, from when to when; the segments are in the segment database.


def _write_veto_definer(flag: VetoFlag, path: Path) -> None:
    from igwn_ligolw import ligolw, lsctables, utils  # noqa: PLC0415  # gwpy's own dependency

    table = lsctables.VetoDefTable.new()
    start, end = (flag.known[0, 0], flag.known[-1, 1]) if len(flag.known) else (0.0, 0.0)
    row = lsctables.VetoDef()
    content: Mapping[str, object] = {
        "process_id": 0,
        "ifo": flag.ifo,
        "name": flag.tag,
        "version": flag.version,
        "category": 3 if flag.category is None else flag.category,
        "start_time": int(np.floor(start)),
        "end_time": int(np.ceil(end)),
        # the segments have their padding already: nobody shall add it once more
        "start_pad": 0,
        "end_pad": 0,
        "comment": flag.description or "",
    }
    for column, value in content.items():
        setattr(row, column, value)
    table.append(row)
    document = ligolw.Document()
    document.appendChild(ligolw.LIGO_LW()).appendChild(table)
    utils.write_filename(document, str(path))


# A payload for the segment database.


def dqsegdb_payload(flag: VetoFlag) -> Mapping[str, object]:
    """What DQSEGDB's interface takes in a PUT to `/dq/IFO/NAME/VERSION`, or gives back; nothing is sent."""
    description = flag.description or ""
    return {
        "ifo": flag.ifo,
        "name": flag.tag,
        "version": flag.version,
        "metadata": {
            "flag_description": description,
            "flag_version_comment": description,
            "further_info_url": "",
            "deactivated": False,
            "active_indicates_ifo_badness": not flag.isgood,
        },
        "known": flag.known.tolist(),
        "active": flag.active.tolist(),
        "insert_history": [],
    }


def _write_dqsegdb(flag: VetoFlag, path: Path) -> None:
    path.write_text(json.dumps(dqsegdb_payload(flag), indent=2) + "\n", encoding="utf-8")


FORMATS: Mapping[str, Format] = {
    "hdf5": Format(".h5", (), _write_hdf5, _read_hdf5),
    "json": Format(".json", ("padding", "label", "category"), _write_json, _read_json),
    "ligolw": Format(".xml", ("isgood", "padding", "description", "label", "category"), _write_ligolw, _read_ligolw),
    "segwizard": Format(".txt", _TIMES_ALONE, _write_segwizard, _read_segwizard, known_beside=True),
    "gates": Format(".gates.txt", _TIMES_ALONE, _write_gates, _read_gates),
    "veto_definer": Format(
        "-veto_definer.xml", ("active", "known", "isgood", "padding", "label"), _write_veto_definer, None
    ),
    "dqsegdb": Format("-dqsegdb.json", ("padding", "label", "category"), _write_dqsegdb, _read_json),
}
"""Formats by the name that `inference.settings.products` uses."""

assert set(FORMATS) == set(get_args(VetoFormat))  # noqa: S101  # what the type names and what there is are one

_READABLE = frozenset(name for name, one in FORMATS.items() if one.read is not None)
