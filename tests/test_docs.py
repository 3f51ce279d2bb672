"""What the documentation says can be done: commands, links, pipelines, steps and keys exist."""

import os
import re
import subprocess
import sys
import zlib
from contextlib import chdir
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf
from tests._configuration import section
from tests._documents import PAGES, ROOT, blocks, commands, inline_commands

from glitchflow_plugin import cli
from glitchflow_plugin.components.trainer import Trainer
from glitchflow_plugin.data.event_files import Channel, RawEvent, write_event
from glitchflow_plugin.data.readers import frames, hdf5
from glitchflow_plugin.models.build import MODELS, full_settings
from glitchflow_plugin.signal.conditioning import ConditioningSettings, needed_length
from glitchflow_plugin.signal.whitening import WhiteningSettings
from glitchflow_plugin.tracking.versions import promote

CONF_FILES = sorted((ROOT / "conf").glob("*.yaml"))
NETWORK_FILES = sorted((ROOT / "conf" / "model").glob("*.yaml"))


def text(path):
    return path.read_text(encoding="utf-8")


def pipelines():
    """Steps by name of the pipeline."""
    files = sorted((ROOT / "conf" / "pipelines").glob("*.yaml"))
    return {file.stem: list(yaml.safe_load(text(file))["steps"]) for file in files}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z]+):", text(ROOT / "Makefile"), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", text(page), re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if "://" in target or target.startswith("#"):
            continue
        assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target} does not exist"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pipelines_and_steps_exist(page):
    known = pipelines()
    for line in text(page).splitlines():
        keys = re.findall(r"\+pipe_key=(\w+)", line)
        assert set(keys) <= set(known), line
        # Without a key exec-pipeline runs the training pipeline; `[...]` in an explanation stands for any list.
        for steps in re.findall(r"\+pipe_steps=\[([\w,-]+)\]", line):
            held = known[keys[0]] if keys else [step for names in known.values() for step in names]
            assert set(steps.split(",")) <= set(held), line


def test_every_pipeline_and_step_is_in_the_guide():
    guide = text(ROOT / "docs" / "pipelines.md")
    for name, steps in pipelines().items():
        assert f"`{name}`" in guide
        for step in steps:
            assert step in guide, f"{step} of {name}"


def overrides(page):
    """Overrides in the commands of a page, as (key, value)."""
    found = []
    for line in text(page).splitlines():
        if "itwinai exec-pipeline" in line:
            found += re.findall(r"(?<![\w+/.-])([a-z_]+(?:\.[a-z_]+)+)=(\S+)", line.replace("`", " "))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_overrides_name_keys_that_exist(page):
    for key, _ in overrides(page):
        group, _, rest = key.partition(".")
        if group == "hydra":
            continue
        # some keys are of the network that the command chooses, which is composed where commands are tried
        known = [section(group), *(section(group, f"conf/model={name}") for name in MODELS if group == "model")]
        value = {name: held for one in known for name, held in one.items()}
        for part in rest.split("."):
            assert part in value, f"{page.name}: {key}"
            value = value[part]


@pytest.mark.parametrize("file", CONF_FILES, ids=lambda file: file.name)
def test_every_key_of_the_configuration_is_explained(file):
    """A key has a comment on its line or on the line above, or where its value is; the first line tells what for."""
    lines = [line for line in text(file).splitlines() if not re.fullmatch(r"(\w+): \$\{maps\.\1\}", line)]
    assert lines[0].startswith("#"), f"{file.name} does not begin with what it is for"
    for number, line in enumerate(lines):
        if re.match(r"[A-Za-z_][\w-]*:", line):
            above = lines[number - 1].lstrip() if number else ""
            assert "#" in line or above.startswith("#"), f"{file.name}:{number + 1}: {line}"


@pytest.mark.parametrize("file", NETWORK_FILES, ids=lambda file: file.name)
def test_every_setting_of_a_network_is_explained(file):
    package, about, *lines = text(file).splitlines()
    assert package == "# @package _global_"
    assert about.startswith("# ")
    settings = [line for line in lines if re.match(r"  (?!name|config|search_space)\w+:|    optim_lr:", line)]
    assert len(settings) == len(section("model", f"conf/model={file.stem}"))
    assert all(" # " in line for line in settings)


def test_every_network_has_a_file():
    assert {file.stem for file in NETWORK_FILES} == set(MODELS)
    for name in MODELS:
        assert section("model.name", f"conf/model={name}") == name


def test_every_configuration_file_is_in_the_guide():
    guides = text(ROOT / "docs" / "pipelines.md") + text(ROOT / "docs" / "own-data.md") + text(ROOT / "README.md")
    for file in CONF_FILES:
        assert file.name in guides, f"{file.name} is explained nowhere"
    for file in (ROOT / "conf" / "profile").glob("*.yaml"):
        assert f"`{file.stem}`" in guides, f"the profile {file.stem} is explained nowhere"


# ----------------------------------------------------------------------------------------- commands, as bash reads them


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """What `glitchflow init` makes."""
    folder = tmp_path_factory.mktemp("run")
    cli.init(folder)
    return folder


@pytest.fixture(scope="module")
def composes(run_folder):
    """Compose the configuration as `itwinai exec-pipeline` does, and build the steps; once for the same words."""
    asked = set()

    def check(words):
        if tuple(words) in asked:
            return
        asked.add(tuple(words))
        config = cli.compose(run_folder, [word for word in words if not word.startswith("+pipe_steps=")])
        pipeline = config[config.get("pipe_key", "training_pipeline")]
        (chosen,) = [word.partition("=")[2] for word in words if word.startswith("+pipe_steps=")] or ["[]"]
        assert set(yaml.safe_load(chosen)) <= set(pipeline.steps), words
        full_settings(**config.model, in_channels=2, window_size=64)  # the Trainer looks at them when it knows the data
        with chdir(run_folder):
            OmegaConf.to_container(pipeline, resolve=True)
            # a step looks at once for its server and for the processes of its strategy
            if not re.search(r"https?://|training\.strategy=", " ".join(words)):
                instantiate(pipeline, _convert_="all")

    return check


def check_call(words, composes):
    """What a command is called with exists, and the program takes it."""
    match words:
        case ["itwinai", "exec-pipeline", option, *_] if option.startswith("-"):
            pass  # Hydra's own
        case ["itwinai", "exec-pipeline", *overrides]:
            composes(overrides)
        case ["torchrun" | "srun", *options]:
            check_call(options[options.index("itwinai") :], composes)
        case ["docker", "run", *options] if "glitchflow_plugin" in options:
            inside = options[options.index("glitchflow_plugin") + 1 :]
            is_override = re.match(r"[+~-]|[^ ]*=", inside[0])
            check_call(["itwinai", "exec-pipeline", *inside] if is_override else inside, composes)
        case ["glitchflow", *arguments]:
            cli.parser().parse_args(arguments)
        case ["make", *arguments]:
            tried = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
            assert tried.returncode == 0, tried.stderr
        case ["itwinai", "generate-slurm", "-c", file, *_]:
            assert (ROOT / file).exists(), file
        case ["bash" | "sbatch", *arguments]:
            assert any((ROOT / word).is_file() for word in arguments), words
            composes([word for word in arguments if "=" in word and not word.startswith("-")])
        case ["python" | "pytest", file, *options] if not file.startswith("-"):
            content = text(ROOT / file)
            assert [word for word in options if word.startswith("-") and f'"{word}"' not in content] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_can_be_given_as_shown(page, composes, tmp_path, monkeypatch):
    monkeypatch.setenv("GLITCHFLOW_TEST_DATA", str(tmp_path))
    # one after the other, as in one session: an alias, a variable or a loop means what it means to bash
    script = "\n".join(block.text for block in blocks(page, "bash"))
    for words in commands(script, tmp_path):
        try:
            check_call(words, composes)
        except (SystemExit, Exception) as error:
            raise AssertionError(f"{page.name}: {' '.join(words)}") from error


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_within_sentences_exist(page, composes, tmp_path, monkeypatch):
    """They may leave out what is plain from the sentence."""
    monkeypatch.setenv("GLITCHFLOW_TEST_DATA", str(tmp_path))
    for words in commands("\n".join(inline_commands(page)), tmp_path):
        if words[0] == "glitchflow":
            with pytest.raises(SystemExit, match=r"^0$"):
                cli.parser().parse_args([*words[1:], "--help"])
        else:
            check_call(words, composes)


@pytest.mark.parametrize(
    "script",
    [
        "itwinai exec-pipeline +pipe_key=preproc_pipline",
        "itwinai exec-pipeline +pipe_key=preproc_pipeline '+pipe_steps=[Annalisa]'",
        "for one in a b; do itwinai exec-pipeline +pipe_key=preproc_pipeline scan.treshold=3; done",
        "itwinai exec-pipeline +pipe_key=preproc_pipeline +scan.treshold=3",
        "itwinai exec-pipeline model.name=unet +model.block=3",
        "torchrun --nproc_per_node=2 --no-python itwinai exec-pipeline training.stratgy=ddp",
        "glitchflow models lst",
        "make dmo",
        "python benchmarks/run.py --onyl scan",
    ],
)
def test_a_command_that_is_wrong_is_noticed(script, composes, tmp_path):
    (words, *_) = commands(script, tmp_path)
    with pytest.raises((SystemExit, Exception)):
        check_call(words, composes)


@pytest.mark.parametrize("script", ["itwinia exec-pipeline", "echo $nobody", "if true; then"])
def test_a_script_that_bash_does_not_take_is_noticed(script, tmp_path):
    with pytest.raises(AssertionError):
        commands(script, tmp_path)


# ----------------------------------------------------------------------------------------- data sets, as the pages show


ENTRIES = [block for page in PAGES for block in blocks(page, "yaml")]


def data_processor(block, folder, **replaced):
    """The step Data-processor with a block in place of conf/datasets.yaml, in a new run folder."""
    cli.init(folder)
    content = block.text
    for old, new in replaced.items():
        content = content.replace(old, new)
    (folder / "conf" / "datasets.yaml").write_text(content)
    config = cli.compose(folder, ["engine.workers=1"])
    with chdir(folder):
        return instantiate(config.preproc_pipeline, _convert_="all").steps["Data-processor"]


@pytest.mark.parametrize("block", ENTRIES, ids=str)
def test_a_data_set_may_stand_alone_in_its_file(block, tmp_path):
    assert set(yaml.safe_load(block.text)) == {"datasets"}, "say here what else a block of YAML may be"
    step = data_processor(block, tmp_path)
    assert step.datasets
    assert {entry.processing.len for entry in step.datasets} == {6.0}


def noise(name, seconds, rate, start):
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    return Channel(name, generator.standard_normal(round(seconds * rate)), start, float(rate), "m")


def make_events(data, run):
    """For the entry with all keys: three event files; the table is for continuous data."""
    start = 1_264_000_000.0
    rates = {"V1:Hrec_hoft_16384Hz": 4096, "V1:ENV_MIC": 2048, "V1:SUS_A": 1024, "V1:SUS_A_RAW": 1024, "V1:INJ_B": 512}
    for number in range(3):
        held = {name: noise(name, 16, rate, start + 100 * number) for name, rate in rates.items()}
        write_event(data / "events" / f"e{number}.h5", RawEvent(f"e{number}", start + 100 * number + 8, held))
    (run / "triggers.csv").write_text("time\n1264000008\n")
    return 3, ("V1:Hrec_hoft_16384Hz", "V1:ENV_MIC", "V1:SUS_A")


def make_frames(data, run):
    """For the entry of frames: two files that touch, and Omicron's triggers."""
    pytest.importorskip("lalframe")
    (data / "frames").mkdir(parents=True)
    names = {"V1:Hrec_hoft_16384Hz": 4096, "V1:ENV_MIC": 2048}
    for start in (1_264_000_000, 1_264_000_016):
        held = {name: noise(name, 16, rate, float(start)) for name, rate in names.items()}
        frames.write(data / "frames" / f"V-V1-{start}-16.gwf", held)
    with h5py.File(run / "omicron.h5", "w") as file:
        file["triggers"] = np.array([(1_264_000_016.25, 12.0)], dtype=[("time", "f8"), ("snr", "f8")])
    return 1, tuple(names)


def make_gwosc(data, run):
    """For the entry of GWOSC's files: those of GW150914."""
    del run
    source = Path(os.environ.get("GLITCHFLOW_TEST_DATA", ".")) / "gwosc"
    found = list(source.glob("H-H1_GWOSC_16KHZ_R1-1126259447-32.hdf5"))
    if not found:
        pytest.skip("GLITCHFLOW_TEST_DATA does not name a folder of real detector data")
    (data / "gwosc").mkdir(parents=True)
    (data / "gwosc" / found[0].name).symlink_to(found[0])
    return 1, ("H1:GWOSC-16KHZ_R1_STRAIN",)


def make_hour(data, run):
    """For flags at a regular stride: a minute of that hour, and the times that the page computes."""
    (data / "hour").mkdir(parents=True)
    names = {"V1:Hrec_hoft_16384Hz": 1024, "V1:ENV_MIC": 512}
    held = {name: noise(name, 64, rate, 1_264_000_000.0) for name, rate in names.items()}
    hdf5.write(data / "hour" / "V-HOUR-1264000000-64.hdf5", held)
    with chdir(run):
        times = run_python(ROOT / "docs" / "own-data.md")["times"]
    return sum(times <= 1_264_000_000 + 64 - 8), tuple(names)


def make_day(data, run):
    """For the selection of triggers: two glitches of several each, all but one of which fall."""
    from gwpy.segments import DataQualityFlag

    (data / "day").mkdir(parents=True)
    start = 1_264_000_000.0
    held = {name: noise(name, 100, 1024, start) for name in ("V1:Hrec_hoft_16384Hz", "V1:ENV_MIC")}
    hdf5.write(data / "day" / "V-DAY-1264000000-100.hdf5", held)
    (run / "omicron").mkdir()
    for number, glitch in enumerate((start + 30, start + 90)):
        with h5py.File(run / "omicron" / f"V1-OMICRON-{number}.h5", "w") as file:
            group = file.create_group("triggers")
            group["time"] = glitch + np.array([-0.05, 0.0, 0.05, 0.1, 10.0])
            group["snr"], group["frequency"] = [9.0, 20.0, 7.0, 12.0, 30.0], [60.0, 60.0, 60.0, 60.0, 900.0]
            group["ml_label"] = ["Blip", "Tomte", "Blip", "Blip", "Blip"]
    active = [[start, start + 60]]
    DataQualityFlag("V1:SCIENCE:1", active=active, known=active).write(str(run / "science.xml.gz"), format="ligolw")
    return 1, tuple(held)


WAYS = {
    "/data/events": make_events,
    "/data/frames": make_frames,
    "/data/day/*.hdf5": make_day,
    "/data/gwosc": make_gwosc,
    "/data/hour": make_hour,
}


@pytest.mark.parametrize(("path", "make"), WAYS.items(), ids=[path.split("/")[2] for path in WAYS])
def test_a_data_set_is_read_as_shown(path, make, tmp_path, monkeypatch):
    (block,) = [block for block in ENTRIES if path in block.text]
    data, run = tmp_path / "data", tmp_path / "run"
    run.mkdir()
    kept, channels = make(data, run)
    step = data_processor(block, run, **{"/data/": f"{data}/"})
    monkeypatch.chdir(run)
    events = step.execute()
    assert len(events) == kept
    assert events.channels[0] == channels[0]
    assert set(events.channels) == set(channels)
    assert events.valid.all()


def test_lengths_in_the_guide_are_those_that_are_needed():
    """The table of own-data.md: rows minf (Hz) and filter_length (s), columns the channel's rate (Hz)."""
    lines = text(ROOT / "docs" / "own-data.md").splitlines()
    (top,) = [number for number, line in enumerate(lines) if line.startswith("| `minf`, `filter_length` |")]
    rates = [float(cell.removesuffix(" Hz")) for cell in lines[top].strip("| ").split(" | ")[1:]]
    rows = [line.strip("| ").split(" | ") for line in lines[top + 2 : lines.index("", top)]]
    assert rows
    for name, *cells in rows:
        low, length = (float(re.sub(r"[^\d.]", "", part)) for part in name.split(", "))
        settings = ConditioningSettings(low=low, whitening=WhiteningSettings(filter_length=length))
        for rate, cell in zip(rates, cells, strict=True):
            assert float(cell) == pytest.approx(needed_length(settings, rate), abs=0.051), (name, rate)


# --------------------------------------------------------------------------------------------------------------- Python


@pytest.fixture
def demo(make_coupled_events, make_registry, tmp_path, monkeypatch):
    """A folder with what the pages read: sets and a registered model of a run called demo, small."""
    training, events = make_coupled_events(recipe={"sample_rate": 1024.0, "duration": 3.0})
    for made, place in ((events, "temp/demo/events"), (training.open_spectrograms(), "QTdatasets/demo")):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).symlink_to(made.folder)
    uri = make_registry(tmp_path)
    Trainer(
        folder=str(training.folder),
        events=str(events.folder),
        model={"name": "coupling", "features": 4},
        epochs=1,
        random_seed=1,
        checkpoints=str(tmp_path / "checkpoints"),
        device="cpu",
        disable_tqdm=True,
        pictures_every=0,
        registry={
            "tracking_uri": uri,
            "artifacts": str(tmp_path / "artifacts"),
            "outbox": str(tmp_path / "outbox"),
            "name": "glitchflow-demo",
        },
    ).execute()
    # of so few events the gate promotes nothing
    promote("glitchflow-demo", 1, uri)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_python(page):
    """Blocks of a page in one namespace, as a reader would type them, each last expression and its value."""
    names = {}
    for block in blocks(page, "python"):
        # the line numbers of errors are those of the page
        exec(compile("\n" * block.line + block.text, str(page), "exec"), names)  # noqa: S102
    return names


@pytest.mark.slow
def test_python_does_what_the_pages_show(demo):
    found = {page.name: run_python(page) for page in PAGES if blocks(page, "python")}
    shown = ["data-formats", "mlflow-tensorboard", "models", "own-data", "q-transform", "triggers", "vetoes"]
    assert set(found) == {f"{name}.md" for name in (*shown, "products")}
    assert (demo / "my_events" / "glitch-1.h5").exists()
    assert found["data-formats.md"]["batch"].maps.shape[:2] == (2, 1)
    strain = found["models.md"]["explained"].strain
    assert strain.shape == (2, 1, 3072)
    for other in (found["mlflow-tensorboard.md"]["strain"], found["mlflow-tensorboard.md"]["exported"]):
        torch.testing.assert_close(other, strain, rtol=1e-4, atol=1e-4)
    assert found["models.md"]["limits"].shape[-1] == 5
    # of the few validation events that there are here no p-value can be told
    assert found["models.md"]["p_value"].shape == (2,)
    assert found["models.md"]["p_value"].isnan().all()
    assert found["vetoes.md"]["path"].exists()
    names = found["q-transform.md"]
    assert names["maps"].shape == (36, 64, 257)
    assert names["glitch"].shape == names["series"].shape


def test_readme_has_the_two_commands():
    readme = text(ROOT / "README.md")
    assert "make demo" in readme
    assert "make test" in readme
    run = text(ROOT / ".ci" / "run")
    assert "make demo" in run
    assert "make test" in run


def test_servers_are_bound_to_this_machine():
    """MLflow and TensorBoard ask for no password."""
    for file in (ROOT / "Makefile", *PAGES):
        for line in text(file).replace("\\\n", " ").splitlines():
            if re.search(r"\b(mlflow server|tensorboard) .*--(backend|logdir)", line):
                assert "--host 127.0.0.1" in line, f"{file.name}: {line}"


@pytest.mark.slow
def test_documentation_builds(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert (tmp_path / "site" / "index.html").exists()
