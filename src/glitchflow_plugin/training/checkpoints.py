"""Checkpoints: folders that are written whole or not at all, and are known by their checksums."""

import logging
import os
import random
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from glitchflow_plugin.data.files import flush, read_json, sha256, write_json
from glitchflow_plugin.errors import ConfigurationError, DataError, FormatError

logger = logging.getLogger(__name__)

BEST, LAST, PREVIOUS = "best_model", "last", "previous"
#: Holds those three of an earlier training until the present one has ended with a better network.
EARLIER = "earlier"
CHECKSUMS = "checksums.json"
#: Notes of a checkpoint: id of the run that wrote it, and what that was trained on.
RUN, ORIGIN = "run", "trained_on"


def write_checkpoint(
    folder: Path, tensors: Mapping[str, Any], notes: Mapping[str, Mapping[str, Any]], *, previous: Path | None = None
) -> None:
    """Write a checkpoint, on disk before anything takes its name.

    Args:
        folder: Where it shall be.
        tensors: What `torch.save` writes, by name; NAME.pt each.
        notes: Records by name; NAME.json each.
        previous: Where the checkpoint that is there now shall be kept; None: it is removed.

    Raises:
        DataError: The disk is full or the folder cannot be written. What was there stays.
    """
    new, old = _beside(folder, "new"), previous or _beside(folder, "old")
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        for name, content in tensors.items():
            torch.save(content, new / f"{name}.pt")
        for name, content in notes.items():
            write_json(new / f"{name}.json", content)
        write_json(new / CHECKSUMS, {path.name: sha256(path) for path in sorted(new.iterdir())})
        for path in (*new.glob("*.pt"), new):
            flush(path)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        new.rename(folder)
        flush(folder.parent)
    # torch reports a full disk as a RuntimeError
    except (OSError, RuntimeError) as error:
        shutil.rmtree(new, ignore_errors=True)
        message = f"cannot write the checkpoint {folder}: {error}. Is the disk full? The one before is kept."
        raise DataError(message) from error
    if previous is None:
        shutil.rmtree(old, ignore_errors=True)


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """Tensors of a checkpoint by name, on the CPU. Nothing but tensors and plain values is unpickled.

    Raises:
        FormatError: It is no checkpoint, or its bytes are not those that were written.
    """
    folder = Path(folder)
    try:
        files = {path.name: path for path in (*folder.glob("*.pt"), *folder.glob("*.json")) if path.name != CHECKSUMS}
        known = read_json(folder / CHECKSUMS, "the training") if (folder / CHECKSUMS).exists() else None
        if known is not None:  # there is none in checkpoints of early versions
            other = files.keys() ^ known.keys() | {name for name in files if sha256(files[name]) != known.get(name)}
            if other:
                raise FormatError(f"{', '.join(sorted(other))} differ from what was written")
        tensors = [path for name, path in files.items() if name.endswith(".pt")]
        found = {path.stem: torch.load(path, map_location="cpu", weights_only=True) for path in tensors}
        if not {"state", "model"} <= set(found):
            raise FormatError("state.pt or model.pt is missing")
    except Exception as error:
        message = f"{folder} is not a usable checkpoint ({type(error).__name__}: {error}). Choose another one."
        raise FormatError(message) from error
    return found


def check_present(folder: Path) -> None:
    """Refuse a folder without a checkpoint.

    Raises:
        ConfigurationError: The message lists checkpoints nearby.
    """
    if not (folder / "state.pt").exists():
        around = folder.parent
        nearby = sorted(str(path.parent) for path in (*around.glob("*/state.pt"), *around.glob("*/*/state.pt")))
        message = (
            f"from_checkpoint: no checkpoint in {folder} (state.pt is missing). "
            f"There are: {', '.join(nearby) or 'none beside it'}."
        )
        raise ConfigurationError(message)


def run_of(folder: Path) -> str:
    """Id of the run that wrote a checkpoint; empty for those of versions that gave none."""
    path = folder / f"{RUN}.json"
    return str(read_json(path, "the training").get("id", "")) if path.exists() else ""


def newest_usable(root: Path) -> Path | None:
    """The last checkpoint of a folder, or the one before it where that is damaged; None if there is neither.

    Raises:
        FormatError: There are checkpoints, and all are damaged.
    """
    broken = []
    for folder in (root / LAST, root / PREVIOUS):
        if not folder.exists():
            continue
        try:
            read_checkpoint(folder)
        except FormatError as error:
            logger.warning("%s", error)
            broken.append(str(folder))
        else:
            if broken:
                logger.warning("Going on from %s instead.", folder)
            return folder
    if broken:
        message = f"no usable checkpoint: {' and '.join(broken)} damaged. Delete the folder to start anew."
        raise FormatError(message)
    return None


def forget_damaged(root: Path, used: Path) -> None:
    """Remove `last` where training goes on from `previous`: the next checkpoint would move it onto the good one."""
    if used.resolve() == (root / PREVIOUS).resolve():
        shutil.rmtree(root / LAST, ignore_errors=True)


def recover(folder: Path) -> None:
    """Put a checkpoint back whose replacement was cut short between two renames."""
    old = _beside(folder, "old")
    if old.exists() and not folder.exists():
        old.rename(folder)


def set_earlier_aside(root: Path) -> None:
    """Make room for a new training, whose resumption must not find the checkpoints of an earlier one.

    The earlier one's best network also stays where it is until the new one has one; whatever moment the new one is
    killed in, the earlier one is whole and can be gone on with, from `root` or from its folder `earlier`.
    """
    earlier = root / EARLIER
    # where there is one, what is in root has not ended, or is no better
    if not earlier.exists() and any((root / name).exists() for name in (BEST, LAST, PREVIOUS)):
        new = _beside(earlier, "new")
        shutil.rmtree(new, ignore_errors=True)
        for name in (BEST, LAST, PREVIOUS):
            if (root / name).exists():
                shutil.copytree(root / name, new / name, copy_function=_link)
        new.rename(earlier)
    if earlier.exists():
        logger.info(
            "An earlier training is in %s until this one has ended with a better network; to go on with it in place of "
            "this one: training.from_checkpoint=%s",
            earlier,
            earlier / LAST,
        )
    for name in (LAST, PREVIOUS):
        shutil.rmtree(root / name, ignore_errors=True)


def bring_earlier_back(root: Path) -> None:
    """Undo `set_earlier_aside`: the earlier training is gone on with, and what came after it is dropped."""
    earlier = root / EARLIER
    for name in (BEST, LAST, PREVIOUS):
        shutil.rmtree(root / name, ignore_errors=True)
        if (earlier / name).exists():
            shutil.copytree(earlier / name, root / name, copy_function=_link)
    drop_earlier(root)


def lies_in(folder: Path | str | None, root: Path) -> bool:
    """Whether a checkpoint, if there is one, is directly in a folder."""
    return folder is not None and Path(folder).resolve().parent == root.resolve()


def prepare_best(root: Path, start: Path | None, *, resume: bool, judged: bool) -> str | None:
    """Begin with the best network of the training that is gone on with, and never with that of another one.

    Args:
        root: Folder of the checkpoints.
        start: The checkpoint to go on from; None: the training is new.
        resume: Whether `start` was found as the newest of `root`.
        judged: Whether the training that is gone on with has come as far as a validation.

    Returns:
        Id of the run whose network is now the best one and may stay it; None: there is none.
    """
    best = root / BEST
    recover(best)
    if start is not None and lies_in(start, root / EARLIER):
        bring_earlier_back(root)
        start = root / start.name
    elif not lies_in(start, root):
        set_earlier_aside(root)
    elif resume and start is not None:
        forget_damaged(root, start)
    if start is None:
        return None
    source = start.parent / BEST
    if source.resolve() == best.resolve() and best.exists():
        # one that was never judged has none yet: the best that lies there is an earlier training's
        return run_of(best) if judged or run_of(best) == run_of(start) else None
    replace_folder(source if source.exists() else start, best)
    return run_of(best)


def replace_folder(source: Path, folder: Path) -> None:
    """Put a copy of a checkpoint in the place of another one, which `recover` finds if this is cut short."""
    new, old = _beside(folder, "new"), _beside(folder, "old")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(source, new)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def drop_earlier(root: Path) -> None:
    """Remove what `set_earlier_aside` kept."""
    shutil.rmtree(root / EARLIER, ignore_errors=True)


def load_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load weights, also those that a wrapper of distributed training has named, and refuse any that do not fit.

    Raises:
        ConfigurationError: The checkpoint is of another network.
    """
    try:
        network.load_state_dict({key.removeprefix("module."): value for key, value in weights.items()}, strict=True)
    except RuntimeError as error:
        message = f"the checkpoint is of another network: {str(error)[:300]} Give it the settings it was made with."
        raise ConfigurationError(message) from error


def check_origin(folder: Path, here: Mapping[str, str]) -> None:
    """Refuse a checkpoint that was trained on something else.

    Args:
        folder: The checkpoint; one of a version that did not note it is taken.
        here: `Learner.origin` of the present training.

    Raises:
        ConfigurationError: Split or scaling is another one.
    """
    path = folder / f"{ORIGIN}.json"
    there = read_json(path) if path.exists() else here
    other = [name for name in here if here[name] != there.get(name)]
    if other:
        message = (
            f"{folder} was trained with another {' and '.join(other)}: going on would mix its training events with the "
            "present validation and test. Make the split and windows as they were, or start anew with "
            "training.from_checkpoint=null."
        )
        raise ConfigurationError(message)


def read_best(root: Path, runs: Collection[str]) -> dict[str, Any]:
    """The checkpoint that was best on validation.

    Args:
        root: Folder of the checkpoints.
        runs: Ids of the runs whose network may be taken: this one, and the one that it goes on from.

    Raises:
        DataError: There is none, or another run has written there meanwhile.
    """
    best = root / BEST
    if best.exists() and run_of(best) in runs:
        return read_checkpoint(best)
    if not best.exists() or run_of(best) == run_of(root / EARLIER / BEST):
        raise DataError("training left no checkpoint: epochs must be at least 1.")
    raise DataError(
        f"{best} is of another run, which has written to {root} at the same time: what this run has trained is lost, "
        "and nothing is registered. Train again with a run_name of its own."
    )


def settle_earlier(root: Path, origin: Mapping[str, str], loss: float) -> None:
    """Remove the training before this one, unless its best network is the better one by the same validation.

    Args:
        root: Folder of the checkpoints.
        origin: What was trained on, as `Learner.origin` gives it: other data make other losses.
        loss: Best validation loss of this training.
    """
    earlier = root / EARLIER / BEST
    note = earlier / f"{ORIGIN}.json"
    if note.exists() and read_json(note) == origin:
        before = float(read_checkpoint(earlier)["state"]["best_validation_metric"])
        if before < loss:
            logger.warning(
                "the earlier training in %s was better (validation loss %.4g, this one %.4g) and stays there; to go "
                "back to it: training.from_checkpoint=%s",
                root / EARLIER,
                before,
                loss,
                root / EARLIER / LAST,
            )
            return
    drop_earlier(root)


def judged_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights of the network that validation saw: the moving average where there is one."""
    return checkpoint.get("average") or checkpoint["model"]


def random_state() -> dict[str, Any]:
    """States of the generators of torch, NumPy and Python, as tensors and plain values."""
    kind, keys, place, has_gauss, gauss = np.random.get_state()  # noqa: NPY002  # libraries use the global one
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), place, has_gauss, gauss),
        "python": random.getstate(),
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Put the generators back to a state from `random_state`."""
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def _link(source: str, target: str) -> None:
    """A second name for a file, or a copy where a file system has no links; checkpoints are replaced, not changed."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f".{folder.name}.{what}")
