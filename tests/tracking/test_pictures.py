"""What is drawn is drawn once, however many look at it."""

from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from glitchflow_plugin.plots.style import Picture
from glitchflow_plugin.tracking.itwinai_tracker import ItwinaiTracker, make_loggers


class Counted(Picture):
    drawn = 0

    def savefig(self, *arguments, **keywords):
        self.drawn += 1
        super().savefig(*arguments, **keywords)


@pytest.fixture
def figure():
    made = Counted(figsize=(8, 3))
    made.add_subplot().plot([1, 2])
    return made


def test_mlflow_and_tensorboard_show_the_same_drawing(make_registry, figure, tmp_path):
    uri = make_registry(tmp_path)
    loggers = make_loggers(uri, "drawn", tmp_path / "tb", tmp_path / "logs", system_metrics=False)
    loggers.create_logger_context(rank=0)
    tracker, run_id = ItwinaiTracker(loggers), loggers.loggers[0].active_run.info.run_id
    tracker.figure("examples", figure, 7)
    tracker.picture("roc", figure)
    loggers.destroy_logger_context()
    assert figure.drawn == 2
    shown = EventAccumulator(str(tmp_path / "tb"), size_guidance={"images": 0})
    shown.Reload()
    for tag, file, step in (("examples", "examples/0007.png", 7), ("pictures/roc", "pictures/roc.png", 0)):
        kept = MlflowClient(uri).download_artifacts(run_id, file, str(tmp_path))
        [seen] = shown.Images(tag)
        assert seen.step == step
        with Image.open(kept) as image:
            assert seen.encoded_image_string == Path(kept).read_bytes()
            assert (seen.width, seen.height) == image.size
            assert np.ptp(np.asarray(image)) > 0


def test_a_logger_that_does_not_listen_has_nothing_drawn(figure):
    ItwinaiTracker(None).figure("examples", figure, 0)
    assert figure.drawn == 0
