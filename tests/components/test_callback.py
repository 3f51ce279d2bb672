"""How a run ends whose configuration or data are wrong, as a user sees it: `itwinai exec-pipeline` in a run folder."""

import os
import re
import shutil
import sys

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from tests import _commands, _warm
from tests.pipelines import _two_processes

from glitchflow_plugin import cli
from glitchflow_plugin.data.files import read_json
from glitchflow_plugin.errors import ConfigurationError, FormatError
from glitchflow_plugin.products.composed import check_names, explained
from glitchflow_plugin.products.overrides import Applied, differences
from glitchflow_plugin.products.summary import RunSummary, format_summary


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run folder as `glitchflow init` makes it."""
    made = tmp_path_factory.mktemp("run")
    cli.init(made)
    return made


@pytest.fixture(scope="module")
def files(folder):
    """The configuration of that folder without overrides."""
    return cli.compose(folder)


def run(folder, *words, start=_warm.run, **variables):
    """Exit status and what was said."""
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HYDRA_FULL_ERROR": ""}
    answer = start(folder, *words, code=None, timeout=300, **paths | variables)
    return answer.returncode, answer.stdout + answer.stderr


# names, before anything starts


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["+pipe_key=preproc_pipelin"], r"no pipeline 'preproc_pipelin'\. Nearest: preproc_pipeline.*vis_dts"),
        (["+pipe_steps=[Trainr]"], r"no step 'Trainr'\. Nearest: Trainer\. Its steps are Splitter, Processor, Trainer"),
        (["+pipe_steps=Trainer"], r"\+pipe_steps=\[Trainer\]"),
        (["+pipe_step=[Trainer]"], r"nothing reads the key 'pipe_step'\. Nearest: pipe_steps"),
    ],
)
def test_names_that_do_not_exist_are_answered_with_those_that_do(folder, files, overrides, told):
    with pytest.raises(ConfigurationError, match=told):
        check_names(cli.compose(folder, overrides), files)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("model=unet", r"model: expected keys with values, got 'unet'.*chosen by conf/model=unet"),
        ("scan=20", r"scan: expected keys with values, got 20\..*scan\.KEY=VALUE"),
        ("whiten=false", "whiten: expected keys with values, got False"),
        ("training.config=3", r"training\.config: expected keys"),
        ("inference.model=glitchflow-demo", r"inference\.model: expected keys.*name, version"),
        ("saveconf.events=null", r"saveconf\.events: expected a name or path, got None"),
        ("saveconf.events=5", r"saveconf\.events: expected a name or path"),
        ("run_name=null", "run_name: expected a name or path, got None"),
        ("run_name=true", "run_name: expected a name or path"),
    ],
)
def test_a_value_in_place_of_a_section_or_name_is_told(folder, files, override, told):
    with pytest.raises(ConfigurationError, match=told):
        check_names(cli.compose(folder, [override]), files)


@pytest.mark.parametrize(
    ("pipeline", "override", "told"),
    [
        ("preproc_pipeline", "datasets.0.processing=3", r"datasets\[0\]\.processing: expected keys"),
        ("inference_pipeline", "inference.datasets=/data", "expected a list with an entry for each data set"),
        ("inference_pipeline", "inference.datasets=[{pth: /data}]", r"unknown key 'pth'\. Nearest: path"),
        ("preproc_pipeline", "whiten.psd=noise.txt", r"whiten\.psd: expected a file for each channel"),
        ("preproc_pipeline", "scan.frange=[8]", r"scan\.frange: expected a pair"),
        ("preproc_pipeline", "process.frange=[400,8]", "Correct `frange`"),
        ("preproc_pipeline", "process.q=0", "q must be at least"),
        ("preproc_pipeline", "scan.num_f_bins=0", "num_f_bins"),
        ("training_pipeline", "model=null", "expected `name`"),
        ("training_pipeline", "model.name=unet", r"'unet' does not take the setting 'features'.*conf/model=unet"),
        ("training_pipeline", "model.name=unnet", r"got 'unnet'\. Nearest: unet"),
        ("training_pipeline", "+model.feature=3", r"the setting 'feature'\. Nearest: features"),
        ("preproc_pipeline", "+process.tau=2", r"process\.tau has no effect: maps always cover the whole event"),
        ("training_pipeline", "training.config.optim_lr=-1", r"optim_lr: expected float .above 0"),
        (
            "training_pipeline",
            "training.config.batch_size=0",
            r"batch_size: expected int .at least 1",
        ),
        (
            "training_pipeline",
            "training.config.lr_scheduler_gamma=1.5",
            r"lr_scheduler_gamma: expected float .below 1",
        ),
        ("inference_pipeline", "inference.model=null", "must have the keys name and version"),
    ],
)
def test_what_no_step_could_use_is_told_before_the_first_step(folder, files, pipeline, override, told):
    config = cli.compose(folder, [override])
    check_names(config, files)
    with pytest.raises(InstantiationException) as failed:
        instantiate(config[pipeline], _convert_="all")
    assert re.search(told, explained(failed.value, config, [override]) or "")


def test_names_that_exist_pass(folder, files):
    for overrides in (
        ["run_name=4711"],
        ["engine=ray"],
        ["engine=null"],
        ["training.config=null"],
        [],
        ["+pipe_key=vis_dts"],
        ["+pipe_steps=[Trainer]"],
        ["+mine=3"],
        ["+pipe_steps=[]"],
    ):
        check_names(cli.compose(folder, overrides), files)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["conf/profile=dmo"], r"no profile 'dmo'\. Nearest: demo\. There are demo, gwosc, leaderboard, o3_glitches\."),
        (["conf/profile=full"], "Where none is named, the files of conf/ apply as they are"),
        (
            ["online.products.formats=[gwf]"],
            r"online\.products is what stream\.products is: set stream\.products\.formats\.",
        ),
        (["online.products.format=[gwf]"], r"stream\.products has no key 'format'\. Nearest: formats"),
        (["scan.treshold=3"], r"scan has no key 'treshold'\. Nearest: threshold"),
        (["profile=demo"], "Nearest: conf/profile"),
        (["~scan.treshold"], "Nearest: threshold"),
        (["scan=[1"], "does not compose"),
        (["pipe_key=preproc_pipeline"], r"added by a plus: \+pipe_key="),
        (["pipe_steps=[Trainer]"], r"added by a plus: \+pipe_steps="),
        (["+conf/profile=demo"], r"without a plus: conf/profile=NAME"),
        (["datasets=[]"], r"datasets\.0\.KEY=VALUE"),
        (["datasets=null"], r"datasets\.0\.KEY=VALUE"),
        (["~datasets"], r"edit conf/datasets\.yaml"),
        (["conf/model=unett"], r"no network 'unett'\. Nearest: unet\. There are coupling, deep_decoder"),
        (["conf/modle=unet"], r"Nearest: conf/model\b"),
        (
            ["model.base=16"],
            r"no key 'base'.*deep_decoder, plain_unet, resnet, shallow_decoder, stft_unet, unet have it: conf/model=",
        ),
        (["conf/model=unet", "model.bse=16"], r"no key 'bse'\. Nearest: base\. It has name, base, depth"),
        (["conf/model=unet", "model.features=8"], r"no key 'features'.*deep_decoder, tcn have it"),
        (["conf/profile=demo", "conf/model=resnet", "model.block=9"], r"Nearest: blocks"),
        (["+model.thresholds=3"], r"set without a plus: model\.thresholds="),
        (["process.qtile=true"], r"process\.qtile has no effect: maps are always interpolated"),
        (["scan.significance=0.01"], "replaced by fdr"),
        (["ingest.workers=2"], r"is now engine\.workers"),
    ],
)
def test_what_does_not_compose_is_told_with_what_would(folder, overrides, told):
    with pytest.raises(ConfigurationError, match=told):
        cli.compose(folder, overrides)


def test_a_file_that_is_no_yaml_is_named_with_its_line(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "conf" / "scan.yaml").write_text("threshold: 3\n  q: [1\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"scan\.yaml\", line 2"):
        cli.compose(tmp_path, ["scan.q=3"])


def test_a_file_in_another_encoding_is_named_with_its_line(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "conf" / "scan.yaml").write_bytes(b"q: 12\nthreshold: 20  # \xe9\n")
    with pytest.raises(ConfigurationError, match=r"scan\.yaml is no UTF-8 in line 2"):
        cli.compose(tmp_path)


@pytest.mark.parametrize("text", ["datasets:\n", "datasets: /data\n", "datasets: {path: /data}\n"])
def test_data_sets_that_are_no_list_are_told(folder, tmp_path, text):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "conf" / "datasets.yaml").write_text(text + "ingest: {shard_size: null}\n", encoding="utf-8")
    config = cli.compose(tmp_path)
    with pytest.raises(InstantiationException) as failed:
        instantiate(config.preproc_pipeline, _convert_="all")
    assert "expected a list with an entry" in (explained(failed.value, config, []) or "")


# errors


def test_the_file_that_is_missing_comes_with_the_command_that_makes_it(folder, monkeypatch):
    monkeypatch.chdir(folder)
    config = cli.compose(folder, ["run_name=o4"])
    for path, command in (
        ("temp/o4/training/training_set.json", "+pipe_key=training_pipeline '+pipe_steps=[Splitter,Processor]'"),
        ("temp/o4/events", "+pipe_key=preproc_pipeline '+pipe_steps=[Data-processor]'"),
        ("QTdatasets/o4/manifest.json", "+pipe_key=preproc_pipeline"),
        ("datasets/o4/training", "+pipe_key=simulate_pipeline"),
        ("inference/o4/data/spectrograms", "+pipe_key=inference_pipeline '+pipe_steps=[Load-infdata]'"),
    ):
        error = FormatError(f"{path} is not there. Run the Processor.").lacking(path)
        told = explained(error, config, ["+pipe_steps=[Trainer]", "run_name=o4"])
        assert told == f"{error}\nTo make it: itwinai exec-pipeline {command} run_name=o4"
    with pytest.raises(FormatError) as caught:
        read_json("elsewhere/x.json")
    assert explained(caught.value, config, []) == str(caught.value)


def test_wrapped_errors_are_found_and_unforeseen_ones_are_left_to_hydra(folder):
    config = cli.compose(folder)
    wrapped = InstantiationException("Error in call to target")
    wrapped.__cause__ = ConfigurationError("q must be positive")
    assert explained(wrapped, config, []) == "q must be positive"
    assert explained(ValueError("a bug"), config, []) is None
    assert explained(InstantiationException("a bug in a constructor"), config, []) is None
    ray = pytest.importorskip("ray.exceptions")
    remote = ray.RayTaskError("task", "Traceback (most recent call last): ...", ConfigurationError("no such column"))
    for error in (remote, remote.as_instanceof_cause()):
        assert explained(error, config, []) == "no such column"
    with pytest.raises(Exception, match="nope") as caught:
        OmegaConf.to_container(OmegaConf.create({"a": "${nope}"}), resolve=True)
    assert "Interpolation key 'nope' not found" in str(explained(caught.value, config, []))


@pytest.mark.slow
def test_a_run_ends_in_one_message_and_with_the_traceback_on_request(folder):
    alone = ("itwinai", "exec-pipeline")
    for words, told in (
        ((*alone, "+pipe_key=preproc_pipelin"), "Nearest: preproc_pipeline"),
        ((*alone, "+pipe_key=preproc_pipeline", "scan.treshold=3"), "Nearest: threshold"),
        ((*alone, "+pipe_key=preproc_pipeline", "+pipe_steps=[Data-processor]"), "+pipe_key=simulate_pipeline"),
        ((*alone, "+pipe_key=preproc_pipeline", "engine.name=lokal"), "Nearest: local"),
    ):
        status, said = run(folder, *words)
        assert status == 1
        assert told in said
        assert said.count("glitchflow: ") == 1
        assert "Traceback" not in said
    status, said = run(folder, *words, HYDRA_FULL_ERROR="1", start=_commands.run)
    assert status == 1
    assert "Traceback" in said


@pytest.mark.slow
def test_of_several_processes_one_speaks(folder, tmp_path):
    torchrun = ("torchrun", "--standalone", "--nproc_per_node=2", "--no-python")
    program, log = ("itwinai", "exec-pipeline"), tmp_path / "said.txt"
    status, said = run(folder, *torchrun, *program, "+pipe_steps=[Trainr]", start=_commands.run)
    one_speaks(status, said)
    words = [*program, "+pipe_steps=[Splitter]"]
    status = _warm.start(_two_processes.run_program, words, folder=folder, output=log).wait()
    one_speaks(status, log.read_text())


def one_speaks(status, said):
    assert status == 1
    assert said.count("glitchflow: ") == 1, said
    assert "glitchflow (process" not in said


# what overrules the files


def test_no_profile_overrules_the_files_unless_it_is_named(folder):
    config = cli.compose(folder)
    assert config.run_name != "demo"
    assert differences(config, config, None) == Applied(None, {}, differences(config, config, None).concerns)
    for section in ("scan", "training", "windows", "simulate"):
        in_the_file = OmegaConf.load(folder / "conf" / f"{section}.yaml")
        of_the_network = OmegaConf.load(folder / "conf" / "model" / "coupling.yaml").get(section, {})
        in_the_file = OmegaConf.merge(in_the_file, of_the_network)
        assert OmegaConf.to_container(config[section]) == OmegaConf.to_container(in_the_file)


def test_a_table_tells_the_profile_and_what_differs_from_the_files(folder):
    overrides = ["scan.q=8", "+registry.note=http://me:secret@host"]
    config = cli.compose(folder, ["conf/profile=demo", *overrides])
    applied = differences(config, cli.compose(folder), "demo", overrides)
    of_the_profile = OmegaConf.load(folder / "conf" / "profile" / "demo.yaml").training.epochs
    assert applied.changed["training.epochs"].used == of_the_profile
    assert applied.changed["training.epochs"].file == 100
    assert applied.changed["training.epochs"].by == "profile demo"
    assert (applied.changed["scan.q"].by, applied.changed["scan.q"].used) == ("command line", 8)
    assert "secret" not in str(applied.changed)
    scan = applied.of("Annalisa-scan")
    assert "scan.q" in scan
    assert "training.epochs" not in scan
    assert "training.epochs" in applied.of("Trainer")
    table = format_summary(RunSummary("preproc_pipeline/Annalisa-scan", "now", profile="demo", changed=scan))
    assert "profile" in table
    assert "8, by command line; the files have 12" in table


def test_a_network_is_told_of_as_a_whole(folder):
    words = ["conf/model=unet", "model.base=16"]
    config, files = cli.compose(folder, words), cli.compose(folder, ["conf/model=unet"])
    trainer = differences(config, files, None, words, cli.compose(folder)).of("Trainer")
    assert {key: (one.used, one.file, one.by) for key, one in trainer.items()} == {
        "model": ("unet", "coupling", "command line"),
        "model.base": (16, 8, "command line"),
    }
    (folder / "conf" / "profile" / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [{override /conf/model: unet}]\nmodel: {base: 16}\n"
    )
    trainer = differences(cli.compose(folder, ["conf/profile=mine"]), files, "mine", [], cli.compose(folder)).of(
        "Trainer"
    )
    (folder / "conf" / "profile" / "mine.yaml").unlink()
    assert {key: one.by for key, one in trainer.items()} == {"model": "profile mine", "model.base": "profile mine"}


def test_every_step_is_known_with_the_sections_that_it_reads(folder):
    concerns = differences(config := cli.compose(folder), config, None).concerns
    assert concerns["Simulator"] >= {"simulate", "saveconf", "run_name"}
    assert "scan" not in concerns["Simulator"]
    assert {"datasets", "whiten", "engine"} <= concerns["Data-processor"]
    assert {"model", "training", "registry"} <= concerns["Trainer"]
