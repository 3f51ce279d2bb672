"""`glitchflow check`: is everything there that the pipelines need?"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir
from dataclasses import dataclass
from importlib import metadata
from importlib.util import cache_from_source, find_spec
from pathlib import Path

from glitchflow_plugin import __version__
from glitchflow_plugin.commands.configuration import compose
from glitchflow_plugin.commands.run_folder import run_folders
from glitchflow_plugin.data.names import check_name
from glitchflow_plugin.errors import ConfigurationError

#: What a run of the demo leaves on disk, with room to spare, in GB.
MIN_FREE_GB = 2.0
_PIPELINES = ("itwinai.pipeline.Pipeline", "glitchflow_plugin.components.pipeline.NamedPipeline")


@dataclass(frozen=True)
class Finding:
    """One line of `glitchflow check`.

    Attributes:
        level: "ok", "note" (works without it) or "ERROR" (pipelines will fail).
        subject: What was looked at.
        detail: What was found, and what to do.
    """

    level: str
    subject: str
    detail: str


def check(folder: Path, overrides: Sequence[str] = ()) -> list[Finding]:
    """Look at everything the pipelines need.

    Args:
        folder: The run folder, which holds config.yaml.
        overrides: Hydra overrides.

    Returns:
        All findings, whether good or bad.
    """
    return [
        *_check_python(),
        *_check_packages(),
        *_check_optional(),
        *_check_device(),
        *_check_configuration(folder, overrides),
        *_check_disk(folder),
    ]


def run_check(options: argparse.Namespace) -> int:
    """Print all findings; status 1 if pipelines would fail."""
    folder, overrides = options.folder, list(options.overrides)
    if "=" in str(folder):  # `glitchflow check run_name=test`: an override, no folder
        folder, overrides = Path(), [str(options.folder), *overrides]
    findings = check(folder, overrides)
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        print(f"{finding.level:5}  {finding.subject:{width}}  {finding.detail}")
    errors = sum(finding.level == "ERROR" for finding in findings)
    print(f"{errors} error(s)" if errors else "Everything needed is there.")
    return 1 if errors else 0


def _check_python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    supported = (3, 11) <= sys.version_info[:2] <= (3, 12)
    yield Finding(
        "ok" if supported else "ERROR", "Python", version if supported else f"{version}; 3.11 or 3.12 is needed"
    )
    spec = find_spec("torch")
    if spec and spec.origin and sys.dont_write_bytecode and not Path(cache_from_source(spec.origin)).exists():
        yield Finding("note", "byte code", "not cached: every start takes 30 s more; unset PYTHONDONTWRITEBYTECODE")


def _check_packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(line) for line in metadata.requires("glitchflow_plugin") or []]
    except metadata.PackageNotFoundError:
        yield Finding("ERROR", "glitchflow_plugin", "not installed; run ./setup.sh or pip install glitchflow_plugin")
        return
    yield Finding("ok", "glitchflow_plugin", __version__)
    for requirement in requirements:
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield Finding("ERROR", requirement.name, f"missing; {requirement} is needed. Run ./setup.sh")
            continue
        fits = requirement.specifier.contains(version, prereleases=True)
        yield Finding(
            "ok" if fits else "ERROR",
            requirement.name,
            version if fits else f"{version}; {requirement.specifier} is needed. Run ./setup.sh",
        )


def _check_optional() -> Iterator[Finding]:
    optional = (
        ("GWF frames", "lalframe", "pip install 'glitchflow_plugin[frames]' (lalsuite, GPL); HDF5 works without"),
        ("NDS2 client", "nds2", "from conda-forge: python-nds2-client; needed only to read from NDS2 servers"),
    )
    for subject, module, advice in optional:
        there = find_spec(module) is not None
        yield Finding("ok" if there else "note", subject, f"{module} is there" if there else f"not there: {advice}")
    server = os.environ.get("GWDATAFIND_SERVER")
    yield Finding(
        "ok" if server else "note", "datafind", server or "GWDATAFIND_SERVER is not set; needed only for datafind"
    )


def _check_device() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("ERROR", "device", f"torch cannot be imported: {error}")
        return
    if torch.cuda.is_available():
        yield Finding("ok", "device", f"cuda: {torch.cuda.get_device_name(0)}")
    else:
        yield Finding("ok", "device", f"cpu with {torch.get_num_threads()} threads (no CUDA device)")


def _check_configuration(folder: Path, overrides: Sequence[str]) -> Iterator[Finding]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        config = compose(folder, overrides)
    except ConfigurationError as error:
        yield Finding("ERROR", "configuration", str(error))
        return
    yield Finding("ok", "configuration", f"composes (run_name: {config.get('run_name')})")
    try:
        check_name(str(config.get("run_name")), "run_name")
    except ConfigurationError as error:
        yield Finding("ERROR", "run_name", str(error))
    with chdir(folder):
        for name in config:
            section = OmegaConf.to_container(config[name], resolve=False) if OmegaConf.is_dict(config[name]) else None
            if not isinstance(section, dict) or section.get("_target_") not in _PIPELINES:
                continue
            try:
                pipeline = OmegaConf.to_container(config[name], resolve=True)
            except OmegaConfBaseException as error:
                yield Finding("ERROR", str(name), " ".join(str(error).split()))
                continue
            steps = pipeline.get("steps", {}) if isinstance(pipeline, dict) else {}
            missing = [target for target in map(_target, steps.values()) if not _module_exists(target)]
            if missing:
                yield Finding("ERROR", str(name), f"cannot find {', '.join(missing)}; correct its _target_")
            else:
                yield Finding("ok", str(name), ", ".join(steps))
    try:
        folders = run_folders(folder.resolve())
    except ConfigurationError as error:
        yield Finding("ERROR", "run folders", str(error))
        return
    unwritable = [path.name for path in folders if path.exists() and not os.access(path, os.W_OK)]
    if unwritable:
        yield Finding("ERROR", "run folders", f"cannot write to {', '.join(unwritable)}; check permissions")
    else:
        yield Finding("ok", "run folders", ", ".join(path.name for path in folders))


def _target(step: object) -> str:
    return step.get("_target_", "a step without _target_") if isinstance(step, dict) else "a step without _target_"


def _module_exists(target: str) -> bool:
    """Whether the module of a `_target_` can be found; the module itself is not imported (that may take seconds)."""
    try:
        return find_spec(target.rpartition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _check_disk(folder: Path) -> Iterator[Finding]:
    if not folder.is_dir():
        return
    free = shutil.disk_usage(folder).free / 1e9
    enough = free >= MIN_FREE_GB
    detail = f"{free:.0f} GB free" if enough else f"{free:.1f} GB free; the demo needs {MIN_FREE_GB:.0f} GB"
    yield Finding("ok" if enough else "ERROR", "disk", detail)
