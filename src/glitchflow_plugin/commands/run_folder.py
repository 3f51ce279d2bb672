"""`glitchflow init`, `new` and `folders`: a folder with the configuration, in which pipelines run."""

import argparse
import re
import shlex
import shutil
from contextlib import chdir
from pathlib import Path

import glitchflow_plugin
from glitchflow_plugin.commands.configuration import CONF_FOLDER, CONFIG_NAME, compose
from glitchflow_plugin.commands.printing import print_columns
from glitchflow_plugin.errors import ConfigurationError

#: Keys of conf/saveconf.yaml that hold an address or a name.
_NO_FOLDERS = ("tracking_uri", "registered_model")


def default_configuration() -> Path:
    """The folder that holds the config.yaml, conf/ and slurm/ that come with this package.

    Raises:
        ConfigurationError: The installation is incomplete.
    """
    package = Path(glitchflow_plugin.__file__).parent
    for folder in (package / "defaults", package.parents[1]):  # a wheel; a development checkout
        if (folder / CONFIG_NAME).is_file() and (folder / CONF_FOLDER).is_dir():
            return folder
    raise ConfigurationError(f"No {CONFIG_NAME} was found in {package / 'defaults'}. Install glitchflow_plugin again.")


def init(folder: Path, force: bool = False) -> list[Path]:
    """Copy the default configuration and the batch scripts into a folder and make its run folders.

    Args:
        folder: Where to copy to; made if missing.
        force: Replace files that are there already. Other files are never touched.

    Returns:
        The files written.

    Raises:
        ConfigurationError: A file would be replaced and `force` is not set.
    """
    files = _to_copy(folder, force)
    for file, target in files.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    make_run_folders(folder)
    return list(files.values())


def _to_copy(folder: Path, force: bool) -> dict[Path, Path]:
    """The default configuration's files, and where each goes."""
    source = default_configuration()
    scripts = sorted((source / "slurm").glob("*.s*"))
    files = [source / CONFIG_NAME, *sorted((source / CONF_FOLDER).rglob("*.yaml")), *scripts]
    targets = {file: folder / file.relative_to(source) for file in files}
    if source.resolve() == folder.resolve():
        raise ConfigurationError(f"{folder} holds the original configuration already. Choose another folder.")
    present = [target for target in targets.values() if target.exists()]
    if present and not force:
        shown = ", ".join(str(path.relative_to(folder)) for path in present[:3])
        more = f" and {len(present) - 3} more of its files" if len(present) > 3 else ""
        raise ConfigurationError(
            f"{folder} already has {shown}{more}. Choose another folder, or replace them with --force."
        )
    return targets


def run_folders(folder: Path) -> list[Path]:
    """The folders directly below the run folder into which conf/saveconf.yaml directs results."""
    from omegaconf import OmegaConf

    section = compose(folder).get("saveconf")
    if section is None:
        raise ConfigurationError(f"The configuration in {folder} has no section saveconf (conf/saveconf.yaml).")
    with chdir(folder):
        places = OmegaConf.to_container(section, resolve=True)
    found = set()
    for key, value in places.items() if isinstance(places, dict) else ():
        if key not in _NO_FOLDERS and isinstance(value, str) and not Path(value).is_absolute():
            found.add(folder / next(part for part in Path(value).parts if part not in (".", "..")))
    return sorted(found)


def make_run_folders(folder: Path) -> list[Path]:
    """Make the folders of `run_folders` and return them."""
    folders = run_folders(folder)
    for path in folders:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"Cannot make {path}: {error.strerror}. Check the disk and permissions."
            ) from error
    return folders


def run_init(options: argparse.Namespace) -> int:
    """Make a run folder with the default configuration."""
    written = init(options.folder, force=options.force)
    print(f"{len(written)} configuration files are in {options.folder.resolve()}. Next:")
    print(f"  cd {options.folder}")
    print("  glitchflow check")
    print(
        "  itwinai exec-pipeline +pipe_key=simulate_pipeline conf/profile=demo    # your own data: conf/datasets.yaml"
    )
    return 0


def run_new(options: argparse.Namespace) -> int:
    """Make a run folder whose settings fit the user's data, and show what was found."""
    from glitchflow_plugin.preprocessing.proposal import propose
    from glitchflow_plugin.preprocessing.run_folder import channel_rows, data_lines, setting_lines, write_proposal
    from glitchflow_plugin.preprocessing.survey import look

    _to_copy(options.folder, options.force)  # refused before minutes of looking
    survey = look(options.data, options.triggers)
    proposal = propose(survey, options.target)
    run_name = run_name_of(options.folder)
    init(options.folder, force=options.force)
    written = write_proposal(options.folder, proposal, run_name)
    for line in data_lines(survey):
        print(line)
    print()
    print_columns(channel_rows(survey, proposal))
    print()
    for line in setting_lines(proposal):
        print(line)
    names = ", ".join(str(path.relative_to(options.folder)) for path in written)
    print(f"\nWritten in {options.folder.resolve()}, for you to read and change: {names}. Next:")
    print(f"  cd {shlex.quote(str(options.folder))}")
    print(f"  glitchflow check {shlex.quote(f'run_name={run_name}')}")
    print(f"  itwinai exec-pipeline +pipe_key=preproc_pipeline {shlex.quote(f'run_name={run_name}')}")
    return 0


def run_name_of(folder: Path) -> str:
    """The folder's own name, as far as a run can be called so."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")[:80] or "mine"
    # on the command line 12 would be a number, and null nothing
    return name if name[0].isalpha() and name.lower() not in ("null", "true", "false", "nan", "inf") else f"run-{name}"


def run_make_folders(options: argparse.Namespace) -> int:
    """Make the folders for results."""
    made = make_run_folders(options.folder.resolve())
    print("run folders: " + ", ".join(path.name for path in made))
    return 0
