"""`glitchflow products`: what lies in a folder of clean strain, and whether it is whole."""

import argparse
from pathlib import Path

from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.products.clean_strain import STATE_BITS, channel_names
from glitchflow_plugin.products.folder import MANIFEST_NAME, VETOES, Manifest, parts_of, read_manifest, total
from glitchflow_plugin.types.intervals import union

_SHOWN = 10


def add_products(parser: argparse.ArgumentParser) -> None:
    """Give the command its arguments."""
    parser.add_argument(
        "folder", type=Path, help="a folder that stream_pipeline has written, or that of a run of online_pipeline"
    )
    parser.add_argument("--quick", action="store_true", help="say what lies there, and read none of it")


def run_products(options: argparse.Namespace) -> int:
    """Print what a folder holds, or each that a run has made, and what is wrong with it; status 1 if anything is.

    Raises:
        ConfigurationError: It is a file.
    """
    if options.folder.is_file():
        raise ConfigurationError(
            f"{options.folder} is a file; files are checked by what their folder says of all of them. Run: "
            f"glitchflow products {options.folder.parent}"
        )
    parts = parts_of(options.folder)
    number = 0
    for folder in parts or [options.folder]:
        if parts:
            print(f"{folder.name}:")
        if parts and folder == parts[-1] and not (folder / MANIFEST_NAME).exists():
            print("          its manifest is not written yet")
            continue
        number += _tell(folder, quick=options.quick)
    if not options.quick:
        print(f"{number} error(s)" if number else "All files are whole.")
    return 1 if number else 0


def _tell(folder: Path, *, quick: bool) -> int:
    """Print what a folder holds and what is wrong with it; returns how much that is."""
    from glitchflow_plugin.products.folder_check import flaws  # pandas is a third of the start of any other command

    for line in described(read_manifest(folder)):
        print(line)
    found = [] if quick else list(flaws(folder))
    for flaw in found:
        print(f"ERROR  {flaw}")
    return len(found)


def described(manifest: Manifest) -> list[str]:
    """What a folder holds, a line each.

    Args:
        manifest: What the folder says of itself.
    """
    what, blocks = manifest.what, manifest.blocks
    files = [one for block in blocks for one in block.files]
    held = union((block.start, block.stop) for block in blocks if block.files)
    covered = float((held[:, 1] - held[:, 0]).sum())
    weights = str(what.get("model_sha256"))[:12]
    names = (*channel_names(manifest.strain, manifest.suffix), *manifest.ranks)
    lines = [
        f"model     {what.get('model')} version {what.get('model_version')}, sha256 {weights}",
        f"channels  {', '.join(names)}",
        f"files     {len(files)}, {sum(one.size for one in files) / 1e6:.1f} MB",
        f"coverage  {covered:.0f} s in {len(held)} stretch(es)",
        *(f"          GPS {start:.0f} to {stop:.0f}" for start, stop in held[:_SHOWN]),
    ]
    if len(held) > _SHOWN:
        lines.append(f"          and {len(held) - _SHOWN} more")
    empty = [block for block in blocks if not block.files]
    if empty:
        lines.append(f"no strain {sum(one.stop - one.start for one in empty):.0f} s in {len(empty)} block(s)")
    looked, vetoed = (
        sum(stop - start for one in blocks for start, stop in getattr(one, name)) for name in ("known", "vetoed")
    )
    if looked:
        lines.append(f"vetoed    {vetoed:.1f} s of {looked:.1f} s that the model has looked at ({vetoed / looked:.2%})")
    lines += [f"flag      {VETOES}/{one.name}" for one in manifest.flags]
    seconds = total(block.seconds for block in blocks)
    shares = ((name, seconds.get(name, 0.0) / max(covered, 1.0)) for name in STATE_BITS)
    lines += [f"set       {name} {seconds.get(name, 0.0):.1f} s ({share:.1%})" for name, share in shares]
    missing = total(block.missing for block in blocks)
    return lines + [f"missing   {name} for {time:.0f} s" for name, time in missing.items()]
