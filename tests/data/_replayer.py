"""Frames that appear in a folder as time goes by, and what goes wrong with them, drawn by a seed.

replayer = Replayer(files, folder, seed=1)
intake = FrameIntake([folder], ..., clock=replayer.clock)
while replayer.step():
    intake.next()
"""

import heapq
import itertools
import shutil
from pathlib import Path

import h5py
import numpy as np

from glitchflow_plugin.data.readers.continuous import description_in_name, span_in_name

HARMLESS = ("well", "late", "half", "copied", "contradicted", "touched", "stray", "junk", "away")
"""What costs no data: all that comes within `PATIENCE` and whole counts."""

HARMFUL = ("never", "broken", "too late")
PATIENCE = 4.0


class Replayer:
    """Files that come when their time is over, one of these things happening with each.

    Args:
        files: Whole ones, in HDF5, named as frames are.
        folder: Where they appear.
        seed: Of what happens.
        harmful: Share of the files that are lost.
    """

    def __init__(self, files, folder, seed, harmful=0.0):
        self.now, self.lost = 0.0, set()
        self.folder, self._hidden = Path(folder), Path(folder).with_name("hidden")
        self._rng, self._due, self._order = np.random.default_rng(seed), [], itertools.count()
        first = min(span_in_name(path)[0] for path in files)
        for path in files:
            kinds = HARMFUL if self._rng.random() < harmful else HARMLESS
            happens = getattr(self, "_" + str(self._rng.choice(kinds)).replace(" ", "_"))
            if kinds is HARMFUL:
                self.lost.add(path.name)
            happens(path, span_in_name(path)[1] - first)

    def clock(self):
        return self.now

    def step(self, seconds=0.25):
        """Let time go by; whether anything is still to happen."""
        self.now += seconds
        later = []
        while self._due and self._due[0][0] <= self.now:
            when, order, action, arguments = heapq.heappop(self._due)
            if self.folder.exists() or action == self._back:
                action(*arguments)
            else:
                later.append((when, order, action, arguments))
        for one in later:
            heapq.heappush(self._due, one)
        return bool(self._due)

    def _at(self, when, action, *arguments):
        heapq.heappush(self._due, (when, next(self._order), action, arguments))

    def _put(self, path, name=None):
        partial = self.folder / f".{path.name}.part"
        shutil.copyfile(path, partial)
        partial.rename(self.folder / (name or path.name))

    def _well(self, path, when):
        self._at(when, self._put, path)

    def _late(self, path, when):
        self._well(path, when + self._rng.uniform(0, 0.6 * PATIENCE))

    def _half(self, path, when):
        self._at(when, self._put_half, path)
        self._at(when + self._rng.uniform(0.3, 2), lambda: shutil.copyfile(path, self.folder / path.name))

    def _copied(self, path, when):
        self._well(path, when)
        self._at(when + self._rng.uniform(0, 6), self._put, path, self._other_name(path))

    def _contradicted(self, path, when):
        self._well(path, when)
        self._at(when + self._rng.uniform(1, 6), self._put_other, path)

    def _touched(self, path, when):
        self._well(path, when)
        self._at(when + 1, (self.folder / path.name).touch)

    def _stray(self, path, when):
        self._well(path, when)
        start, stop = span_in_name(path)
        far = start + self._rng.integers(10_000, 100_000_000)
        self._at(when, self._put, path, f"{description_in_name(path)}-{far:.0f}-{stop - start:.0f}.h5")

    def _junk(self, path, when):
        self._well(path, when)
        for name in ("README.txt", "V-NO-TIME.h5", f".{path.name}", f"{path.name}.tmp"):
            self._at(when, self._put, path, name)
        self._at(when, lambda: (self.folder / self._other_name(path)).mkdir(exist_ok=True))

    def _away(self, path, when):
        self._well(path, when)
        self._at(when - 0.5, self._hide)

    def _never(self, path, when):
        pass

    def _broken(self, path, when):
        self._at(when, self._put_half, path)

    def _too_late(self, path, when):
        self._well(path, when + self._rng.uniform(3, 5) * PATIENCE)

    def _put_half(self, path):
        content = path.read_bytes()
        (self.folder / path.name).write_bytes(content[: len(content) // 2])

    def _put_other(self, path):
        name = self._other_name(path)
        changed = self.folder / f".{name}.part"
        shutil.copyfile(path, changed)
        with h5py.File(changed, "r+") as file:
            file.visititems(lambda _, one: one.__setitem__(..., one[()] + 1) if isinstance(one, h5py.Dataset) else None)
        changed.rename(self.folder / name)

    def _other_name(self, path):
        return f"{path.name[0]}-OTHER_{path.name[2:]}"

    def _hide(self):
        self.folder.rename(self._hidden)
        self._at(self.now + 1, self._back)

    def _back(self):
        self._hidden.rename(self.folder)
