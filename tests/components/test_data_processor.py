import subprocess
import sys

import numpy as np
import pytest
import yaml

from glitchflow_plugin.components.data_processor import DataProcessor
from glitchflow_plugin.data.event_files import Channel, RawEvent, write_event
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.errors import ConfigurationError
from glitchflow_plugin.preprocessing.ingest import IngestSettings
from glitchflow_plugin.products.summary import read_summary
from glitchflow_plugin.signal.conditioning import USUAL_JITTER, ConditioningSettings, needed_length
from glitchflow_plugin.signal.whitening import WhiteningSettings

T0 = 1_264_000_000.0


@pytest.fixture
def datasets(tmp_path):
    generator = np.random.default_rng(0)
    for number in range(3):
        channels = {
            name: Channel(name, generator.normal(size=16 * 1024), T0 + 100 * number - 8, 1024.0, unit)
            for name, unit in (("V1:STRAIN", "strain"), ("V1:A", "m"))
        }
        if number == 1:
            channels["V1:A"] = Channel("V1:A", np.zeros(16 * 1024), T0 + 92, 1024.0, "m")
        write_event(tmp_path / "in" / f"e{number}.h5", RawEvent(f"e{number}", T0 + 100 * number, channels))
    return [{"path": str(tmp_path / "in"), "target": "V1:STRAIN"}]


def test_the_step_makes_the_set_and_tells_what_it_did(datasets, tmp_path, capsys):
    step = DataProcessor(datasets, str(tmp_path / "out"), whiten={"fft_length": 1.0}, engine={"workers": 1})
    events = step.execute()
    assert isinstance(events, EventSet)
    assert EventSet.open(tmp_path / "out").event_ids == ("e0", "e1", "e2")
    summary = read_summary(tmp_path / "out")
    assert summary.pipeline == "preproc_pipeline/Data-processor"
    assert (summary.events.read, summary.events.kept) == (3, 3)
    assert summary.warnings == ("V1:A masked in 1 of 3 events (constant 1)",)
    assert "3 read, 3 kept" in capsys.readouterr().out
    assert summary.inputs["groups"] == "no labels: GPS blocks"
    (tmp_path / "labels.csv").write_text("event_id,group\ne0,storm\ne2,storm\n")
    labelled = [{**datasets[0], "groups": str(tmp_path / "labels.csv")}]
    DataProcessor(labelled, str(tmp_path / "out"), engine={"workers": 1}).execute()
    assert read_summary(tmp_path / "out").inputs["groups"] == "1, of 2 events"


def test_misspelt_arguments_fail_before_anything_runs(datasets, tmp_path):
    with pytest.raises(ConfigurationError, match="worker"):
        DataProcessor(datasets, str(tmp_path / "out"), ingest={"worker": 1})
    with pytest.raises(ConfigurationError, match=r"ingest\.workers is now engine\.workers"):
        DataProcessor(datasets, str(tmp_path / "out"), ingest={"workers": 1})
    with pytest.raises(ConfigurationError, match="nodes"):
        DataProcessor(datasets, str(tmp_path / "out"), engine={"nodes": 2})
    with pytest.raises(ConfigurationError, match="targt"):
        DataProcessor([{"path": "x", "targt": "y"}], str(tmp_path / "out"))
    with pytest.raises(ConfigurationError, match="fftlength"):
        DataProcessor(datasets, str(tmp_path / "out"), whiten={"fftlength": 1})


def test_the_step_starts_without_torch_or_gwpy():
    code = (
        "import sys, glitchflow_plugin.components.data_processor as m; "
        "heavy = {'torch', 'gwpy', 'mlflow', 'matplotlib', 'pandas'} & set(sys.modules); "
        "sys.exit(f'{heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_shipped_configuration_is_the_default_of_the_code(request):
    conf = request.config.rootpath / "conf"
    whiten = yaml.safe_load((conf / "whiten.yaml").read_text())
    assert (whiten.pop("psd"), whiten.pop("psd_quantity")) == (None, "psd")
    assert WhiteningSettings(**whiten) == WhiteningSettings()
    content = yaml.safe_load((conf / "datasets.yaml").read_text())
    assert IngestSettings(**content["ingest"]) == IngestSettings()
    from glitchflow_plugin.data.datasets import DatasetSettings, ProcessingSettings

    settings = DatasetSettings.from_mapping(content["datasets"][0])
    # null leaves a model its own jitter, and is this for data without a model
    assert settings.processing == ProcessingSettings(crop_jitter=USUAL_JITTER)
    assert (settings.segment, settings.format) == (16.0, "auto")


@pytest.mark.parametrize(("room", "told"), [(0.05, True), (1.0, False)])
def test_data_that_leave_the_crop_no_room_to_move_are_told(tmp_path, room, told):
    half = needed_length(ConditioningSettings(), 1024.0) / 2 + room
    generator = np.random.default_rng(0)
    for number in range(12):
        gps = T0 + 100 * number
        series = generator.normal(size=round(2 * half * 1024))
        channel = Channel("V1:STRAIN", series, gps - series.size / 2048, 1024.0, "strain")
        write_event(tmp_path / "in" / f"e{number}.h5", RawEvent(f"e{number}", gps, {"V1:STRAIN": channel}))
    DataProcessor([{"path": str(tmp_path / "in"), "target": "V1:STRAIN"}], str(tmp_path / "out")).execute()
    warnings = read_summary(tmp_path / "out").warnings
    assert any("crop_jitter: 0.5 s was asked for" in one for one in warnings) == told
