"""The command `glitchflow`."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from glitchflow_plugin import cli
from glitchflow_plugin.commands import checks
from glitchflow_plugin.commands import run_folder as making
from glitchflow_plugin.data.event_files import Channel, RawEvent, write_event
from glitchflow_plugin.errors import ConfigurationError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def run_folder(tmp_path):
    """A run folder whose configuration is small and known."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "config.yaml").write_text(
        "defaults:\n  - conf/saveconf@saveconf\n  - _self_\nrun_name: toy\n"
        "toy_pipeline:\n  _target_: itwinai.pipeline.Pipeline\n"
        "  steps:\n"
        "    First: {_target_: glitchflow_plugin.products.summary.RunSummary, path: '${saveconf.datasets}'}\n",
        encoding="utf-8",
    )
    (tmp_path / "conf" / "saveconf.yaml").write_text(
        "datasets: datasets/${run_name}\nscan: ./annalisarun/${run_name}\nplain: results\nfar: /nowhere/far\n"
        "tracking_uri: sqlite:///mlflow.db\nregistered_model: a-${run_name}\n",
        encoding="utf-8",
    )
    return tmp_path


def test_init_copies_every_configuration_file_and_makes_run_folders(tmp_path):
    written = cli.init(tmp_path / "new")
    assert (tmp_path / "new" / "config.yaml") in written
    for file in [*(ROOT / "conf").rglob("*.yaml"), *(ROOT / "slurm").iterdir()]:
        assert (tmp_path / "new" / file.relative_to(ROOT)).read_bytes() == file.read_bytes()
    for name in ("annalisarun", "datasets", "QTdatasets", "temp"):
        assert (tmp_path / "new" / name).is_dir()


def test_init_replaces_nothing_unless_forced(tmp_path):
    cli.init(tmp_path)
    (tmp_path / "config.yaml").write_text("mine: 1\n", encoding="utf-8")
    (tmp_path / "conf" / "mine.yaml").write_text("mine: 2\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"config\.yaml.*--force"):
        cli.init(tmp_path)
    assert (tmp_path / "config.yaml").read_text(encoding="utf-8") == "mine: 1\n"
    cli.init(tmp_path, force=True)
    assert (tmp_path / "config.yaml").read_bytes() == (ROOT / "config.yaml").read_bytes()
    assert (tmp_path / "conf" / "mine.yaml").read_text(encoding="utf-8") == "mine: 2\n"


def test_init_of_the_checkout_itself_is_refused():
    with pytest.raises(ConfigurationError, match="original"):
        cli.init(cli.default_configuration(), force=True)


def test_new_makes_a_run_folder_that_fits_the_data_and_shows_how_to_go_on(tmp_path, capsys):
    series = np.random.default_rng(0).standard_normal(8 * 2048)
    for number in range(3):
        gps = 1_264_000_000.0 + 300 * number
        held = {
            name: Channel(name, series[: 8 * rate], gps - 4, float(rate), "m")
            for name, rate in (("V1:Hrec_hoft", 2048), ("V1:MIC", 1024), ("V1:SLOW", 4))
        }
        write_event(tmp_path / f"data/{number}.h5", RawEvent(str(number), gps, held))
    words = ["new", str(tmp_path / "o4 run"), "--data", str(tmp_path / "data")]
    assert cli.main(words) == 0
    output = capsys.readouterr().out
    assert "V1:SLOW" in output
    assert f"cd '{tmp_path}/o4 run'" in output
    assert "itwinai exec-pipeline +pipe_key=preproc_pipeline run_name=o4-run" in output
    config = cli.compose(tmp_path / "o4 run", ["run_name=o4-run"])
    assert config.datasets[0].ch_list == ["V1:Hrec_hoft", "V1:MIC"]
    assert config.datasets[0].processing.len < 6
    (tmp_path / "o4 run/conf/datasets.yaml").write_text("mine: 1\n")
    assert cli.main(words) == 1
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / "o4 run/conf/datasets.yaml").read_text() == "mine: 1\n"
    assert cli.main([*words, "--force"]) == 0


def test_new_writes_nothing_where_nothing_can_be_proposed(tmp_path, capsys):
    assert cli.main(["new", str(tmp_path / "run"), "--data", str(tmp_path / "nowhere")]) == 1
    assert "names no file" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("folder", "name"), [("my run!", "my-run"), ("2024", "run-2024"), ("null", "run-null"), ("é", "mine")]
)
def test_a_run_is_called_like_its_folder_as_far_as_that_goes(folder, name):
    assert making.run_name_of(Path("/data") / folder) == name


def test_run_folders_are_the_first_parts_of_relative_paths(run_folder):
    assert [path.name for path in cli.run_folders(run_folder)] == ["annalisarun", "datasets", "results"]
    made = cli.make_run_folders(run_folder)
    assert all(path.is_dir() and path.parent == run_folder for path in made)
    assert cli.make_run_folders(run_folder) == made


def test_a_file_in_place_of_a_run_folder_is_named(run_folder):
    (run_folder / "results").touch()
    with pytest.raises(ConfigurationError, match="results"):
        cli.make_run_folders(run_folder)


def test_compose_takes_overrides(run_folder):
    assert cli.compose(run_folder, ["run_name=other"]).saveconf.datasets == "datasets/other"


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "config.yaml").unlink(), "glitchflow init"),
        (lambda folder: (folder / "conf" / "saveconf.yaml").unlink(), "saveconf"),
        (
            lambda folder: (folder / "conf" / "saveconf.yaml").write_text("a: [1\n", encoding="utf-8"),
            "does not compose",
        ),
    ],
    ids=["no config.yaml", "missing group", "broken YAML"],
)
def test_a_configuration_that_does_not_compose_says_why(run_folder, break_it, message):
    break_it(run_folder)
    with pytest.raises(ConfigurationError, match=message):
        cli.compose(run_folder)


def test_check_lists_pipelines_and_succeeds(run_folder, capsys):
    assert cli.main(["check", str(run_folder)]) == 0
    output = capsys.readouterr().out
    assert "toy_pipeline" in output
    assert "First" in output
    assert "torch" in output
    assert "Everything needed is there." in output


def test_check_counts_its_first_word_as_an_override_if_it_is_one(run_folder, monkeypatch, capsys):
    monkeypatch.chdir(run_folder)
    assert cli.main(["check", "run_name=other"]) == 0
    assert "run_name: other" in capsys.readouterr().out


def test_check_finds_a_misspelt_target(run_folder, capsys):
    text = (run_folder / "config.yaml").read_text(encoding="utf-8").replace("products.summary", "products.sumary")
    (run_folder / "config.yaml").write_text(text, encoding="utf-8")
    assert cli.main(["check", str(run_folder)]) == 1
    assert "glitchflow_plugin.products.sumary.RunSummary" in capsys.readouterr().out


def test_check_finds_a_reference_into_nothing(run_folder, capsys):
    with (run_folder / "config.yaml").open("a", encoding="utf-8") as file:
        file.write("    Second: {_target_: glitchflow_plugin.products.summary.RunSummary, path: '${saveconf.data}'}\n")
    assert cli.main(["check", str(run_folder)]) == 1
    assert "saveconf.data" in capsys.readouterr().out


def test_check_finds_wrong_and_missing_packages(run_folder, monkeypatch, capsys):
    wanted = ["numpy>=99", "no-such-package>=1", "h5py>=3", "lalsuite>=7; extra == 'frames'"]
    monkeypatch.setattr(checks.metadata, "requires", lambda _: wanted)
    assert cli.main(["check", str(run_folder)]) == 1
    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if len(line.split()) > 1}
    assert lines["numpy"].startswith("ERROR")
    assert lines["no-such-package"].startswith("ERROR")
    assert lines["h5py"].startswith("ok")
    assert "lalsuite>=7" not in lines


def test_check_finds_a_full_disk(run_folder, monkeypatch, capsys):
    usage = shutil.disk_usage(run_folder)._replace(free=10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert cli.main(["check", str(run_folder)]) == 1
    assert "0.1 GB free" in capsys.readouterr().out


def test_a_wrong_command_line_is_status_two():
    with pytest.raises(SystemExit) as raised:
        cli.main(["dance"])
    assert raised.value.code == 2


def test_a_name_that_leads_elsewhere_is_found_by_check(run_folder):
    findings = cli.check(run_folder, ["run_name=../../evil"])
    assert [one.level for one in findings if one.subject == "run_name"] == ["ERROR"]


def test_what_the_system_refuses_is_told_in_words(tmp_path, capsys, monkeypatch):
    def refuse(*_):
        raise PermissionError(30, "Read-only file system", "/somewhere/config.yaml")

    monkeypatch.setattr(shutil, "copyfile", refuse)
    assert cli.main(["init", str(tmp_path / "new")]) == 1
    assert "/somewhere/config.yaml: Read-only file system" in capsys.readouterr().err


def test_ctrl_c_is_told_without_a_traceback(tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfile", interrupted)
    assert cli.main(["init", str(tmp_path / "new")]) == 130
    assert capsys.readouterr().err == "glitchflow: ended by Ctrl-C.\n"
