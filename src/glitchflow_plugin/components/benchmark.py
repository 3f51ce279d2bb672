"""The step Leaderboard: entrants trained on the same events, with the same seed and time, judged on the same others."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from itwinai.components import BaseComponent, monitor_exec
from torch import Tensor

from glitchflow_plugin.components._device import choose_device
from glitchflow_plugin.components._figures import save_figure
from glitchflow_plugin.components._leaderboard_page import (
    entrants_table,
    figures_of,
    introduction,
    kinds_table,
    page_block,
)
from glitchflow_plugin.components._report import report
from glitchflow_plugin.components._step import holding
from glitchflow_plugin.components.trainer import Trainer
from glitchflow_plugin.data.files import atomic_path, content_hash, read_json, write_json
from glitchflow_plugin.data.names import check_name
from glitchflow_plugin.data.recipe import Recipe
from glitchflow_plugin.data.results import keep_former
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.data.splits import PARTS
from glitchflow_plugin.data.training_set import TrainingSet
from glitchflow_plugin.errors import ConfigurationError, FormatError
from glitchflow_plugin.inference.leaderboard import (
    HeldOut,
    Judgement,
    LeaderboardSettings,
    Standings,
    judge_entrant,
    judge_trivial,
    standings,
)
from glitchflow_plugin.inference.predict import MapPredictor, Predictor
from glitchflow_plugin.inference.trivial import TRIVIAL
from glitchflow_plugin.models.build import MODELS, check_network
from glitchflow_plugin.models.bundle import WaveformTwin
from glitchflow_plugin.preprocessing.engine import EngineSettings
from glitchflow_plugin.preprocessing.ingest import ingest_with_recipe
from glitchflow_plugin.preprocessing.spectrograms import make_spectrograms
from glitchflow_plugin.preprocessing.truth import read_glitch_truth
from glitchflow_plugin.products.page import insert_block
from glitchflow_plugin.products.summary import EventCounts, Metric, RunSummary, now, versions
from glitchflow_plugin.products.veto_table import write_table
from glitchflow_plugin.settings import built
from glitchflow_plugin.signal.columns import Columns, judged_pixels
from glitchflow_plugin.signal.qtransform import QTransformSettings
from glitchflow_plugin.tracking.versions import ModelVersion
from glitchflow_plugin.training.calibration import Coverage, coverage, leave_out
from glitchflow_plugin.training.evaluation import ZeroTwin

logger = logging.getLogger(__name__)

ZERO = "zero"
"""Name of the model that predicts nothing."""

CLOSED_FORM = ("linear", "wiener")
"""Models that are fitted in closed form, their ridge chosen on validation; no epoch is trained."""

_FORMAT = 2
#: Folders whose content says by itself what it is of.
_KNOWN = ("entrants", "checkpoints", "events", "spectrograms")
#: Gain of a witness that shall look new to a twin.
_STRANGE_GAIN = 5.0


@dataclass(frozen=True)
class Entrant:
    """One line of the leaderboard.

    Attributes:
        model: Name and settings of the network, as in conf/model/; `name` may be `zero`, which predicts nothing.
        config: Keys of `training.config` that are its own.
        missing: Whether it is also judged with witnesses taken away; wide networks are slow.
    """

    model: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    missing: bool = True

    def __post_init__(self) -> None:
        """Refuse a model that does not exist before others have been trained for minutes."""
        known = sorted({*MODELS, ZERO})
        if self.model.get("name") not in known:
            raise ConfigurationError(f"benchmark.yaml: expected a model name out of {known}, got {dict(self.model)}.")
        if self.kind != ZERO:
            check_network(self.model)

    @property
    def kind(self) -> str:
        """Name of its model."""
        return str(self.model["name"])


class EntrantTrainer(Trainer):
    """The Trainer without what comes after training: the leaderboard judges, on events of its own."""

    minutes = 0.0

    def train(self) -> None:
        """Train, and note the time."""
        begun = perf_counter()
        super().train()
        self.minutes = (perf_counter() - begun) / 60

    def fit(self, training_set: TrainingSet) -> None:
        """Fit the linear rival of the representation in place of training."""
        begun = perf_counter()
        self.training_set = training_set
        lags = self.network_settings.get("lags")
        if lags is not None:
            self.baseline_settings = replace(self.baseline_settings, lags=tuple(lags))
        self.learner = self._choose_learner()
        untrained = self.learner.network().to(self._device)
        self.twin = self.learner.baseline(self.learner.twin(untrained), self._batches).twin
        self.minutes = (perf_counter() - begun) / 60

    def how_to_go_on(self) -> str:
        """What to tell the user of a leaderboard that was asked to end."""
        return "The same command goes on: entrants that are finished are kept, this one begins anew."

    def _finish(self, started: str) -> ModelVersion | None:
        del started
        self.learner.calibrate(self.twin, self._batches)


class Leaderboard(BaseComponent):
    """Train every entrant and compare them on held-out events of a simulation, whose glitches are known.

    What was found of an entrant is kept; a run that was killed goes on with the next one.

    Args:
        entrants: By name: `model` (name and settings of a network) and `config` (keys of `training.config` of its own).
        held_out: `datasets`, as in datasets.yaml, of events that no training has seen, and `truth`, the folder of their
            truth file.
        settings: See `LeaderboardSettings`.
        training: Folder of the training set, used where none comes from the step before.
        events: Folder of the event set that its maps were made of.
        folder: Where everything goes.
        config: `training.config`, for all entrants.
        baseline: `training.baseline`.
        minutes: Time that each entrant may train; None: all epochs.
        epochs: Most epochs.
        random_seed: Of weights and order.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        engine: Where the held-out set is made: the keys of engine.yaml.
        page: Markdown page that gets the results, between the markers of `run_name`; None: none does.
        run_name: Of the leaderboard.
        disable_tqdm: No progress bars.
        name: Of the step.
    """

    def __init__(
        self,
        *,
        entrants: Mapping[str, Mapping[str, Any]],
        held_out: Mapping[str, Any],
        settings: Mapping[str, Any],
        training: str,
        events: str,
        folder: str,
        config: Mapping[str, Any] | None = None,
        baseline: Mapping[str, Any] | None = None,
        minutes: float | None = 5.0,
        epochs: int = 1000,
        random_seed: int = 0,
        device: str = "auto",
        engine: Mapping[str, Any] | str | None = None,
        page: str | None = None,
        run_name: str = "demo",
        disable_tqdm: bool = False,
        name: str | None = None,
    ) -> None:
        arguments = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        super().__init__(name)
        self.save_parameters(**arguments)
        if set(held_out) != {"datasets", "truth"}:
            raise ConfigurationError(
                f"benchmark.yaml: held_out has the keys datasets and truth, got {sorted(held_out)}."
            )
        taken = sorted(set(entrants) & set(TRIVIAL))
        if taken:
            raise ConfigurationError(
                f"benchmark.yaml: {taken} are entrants of every leaderboard already. Give yours another name."
            )
        if not entrants:
            raise ConfigurationError("benchmark.yaml: expected at least one entrant, got none.")
        check_name(str(run_name), "run_name")
        for entrant in entrants:
            check_name(entrant, "benchmark.yaml: name of an entrant")
        self.entrants = {
            key: built(Entrant, content, f"benchmark.entrants.{key}") for key, content in entrants.items() if content
        }
        self.settings, self.held_out = built(LeaderboardSettings, settings, "benchmark.settings"), dict(held_out)
        self.training, self.events, self.folder = Path(training), Path(events), Path(folder)
        self.config, self.baseline = dict(config or {}), dict(baseline or {})
        self.minutes, self.epochs, self.random_seed = minutes, epochs, random_seed
        self.device, self.engine = choose_device(device), EngineSettings.of(engine)
        self.page, self.run_name, self.disable_tqdm = page, run_name, disable_tqdm

    @monitor_exec
    @holding("folder", reads=("training",))
    def execute(self, training_set: TrainingSet | None = None) -> Standings:
        """Train, judge and compare all entrants; write tables, pictures and summary."""
        started = now()
        training_set = training_set or TrainingSet.open(self.training)
        held_out, series = self._prepare(training_set)
        judgements = {
            name: self._judged(name, entrant, training_set, held_out, series) for name, entrant in self.entrants.items()
        }
        judgements |= judge_trivial(held_out, self.settings)
        linear = [name for name, entrant in self.entrants.items() if entrant.kind in CLOSED_FORM]
        result = standings(judgements, held_out, self.settings, linear)
        former = keep_former(
            self.folder,
            {
                "entrants": {name: asdict(entrant) for name, entrant in self.entrants.items()},
                "training": [self.config, self.baseline, self._budget()],
                "training set": training_set.fingerprint,
                "held out": held_out.maps.manifest.fingerprint,
                "settings": asdict(self.settings),
            },
            stay=_KNOWN,
        )
        outputs = self._write(result, judgements, held_out) | ({"former results": str(former)} if former else {})
        report(
            RunSummary(
                pipeline="benchmark_pipeline/Leaderboard",
                started=started,
                inputs={"training set": str(training_set.folder), "held out": str(held_out.maps.folder)},
                events=EventCounts.from_reasons(len(held_out.maps), held_out.maps.manifest.rejected.values()),
                metrics={
                    f"median_net_removed_{name}": _metric(row["median_net_removed"])
                    for name, row in result.figures.items()
                },
                outputs=outputs,
                details=result.to_dict(),
            ),
            self.folder,
        )
        return result

    def _prepare(self, training_set: TrainingSet) -> tuple[HeldOut, EventSet]:
        """Put the held-out data through the recipe of the training set."""
        maps = training_set.open_spectrograms()
        recipe = Recipe.from_dict(maps.recipe)
        conditioning, transform = recipe.part("events"), QTransformSettings.from_recipe(recipe.part("qtransform"))
        series = ingest_with_recipe(
            self.held_out["datasets"], conditioning, maps.channels, self.folder / "events", engine=self.engine
        )
        seen = sorted(set(series.event_ids) & set(maps.event_ids))
        if seen:
            raise ConfigurationError(
                f"{len(seen)} held-out events are in the training set too (the first is {seen[0]}). Correct held_out."
            )
        made = make_spectrograms(
            series,
            maps.channels[1:],
            transform,
            self.folder / "spectrograms",
            device=self.device,
            engine=self.engine,
            selection={"channels": "training set"},
        )
        truth = read_glitch_truth(self.held_out["truth"], conditioning, made.event_ids, made.gps_start)
        inside = judged_pixels(made.frequencies, Columns(made.times), transform.qs)
        return HeldOut(made, truth, inside), series

    def _judged(
        self, name: str, entrant: Entrant, training_set: TrainingSet, held_out: HeldOut, series: EventSet
    ) -> Judgement:
        """Train and judge an entrant, unless this was done before with the same settings and data."""
        split = {part: training_set.split.part(part).event_ids for part in PARTS}
        # what decides about the comparison alone is left out
        used = replace(self.settings, accuracy_range=(1, 50), replicates=0, witness_snr=(1.0,), batch_events=1)
        untrained = entrant.kind in (ZERO, *CLOSED_FORM)
        key = content_hash(
            {
                "format": _FORMAT,
                "versions": {package: versions().get(package) for package in ("glitchflow_plugin", "torch")},
                "entrant": {**asdict(entrant), "config": {**self.config, **entrant.config}},
                "training": [self.baseline, None if untrained else self._budget()],
                "device": torch.device(self.device).type,
                "events": EventSet.open(self.events).manifest.fingerprint,
                "training set": [training_set.fingerprint, split, training_set.scaling, vars(training_set.settings)],
                "held out": held_out.maps.manifest.fingerprint,
                "settings": asdict(used),
            }
        )
        path = self.folder / "entrants" / f"{name}.json"
        try:
            kept = read_json(path)
            if kept.get("key") == key:
                logger.info("%s: judged before with the same settings and data", name)
                return Judgement.from_dict(kept["judgement"])
        except (FormatError, KeyError, TypeError, AttributeError, ValueError):
            pass  # none, or not ours: made anew
        logger.info("%s: training", name)
        predict, facts = self._trained(name, entrant, training_set, held_out.maps.channels, series)
        logger.info("%s: judging", name)
        settings = self.settings if entrant.missing else replace(self.settings, missing=())
        judgement = judge_entrant(predict, held_out, settings, facts)
        write_json(path, {"key": key, "entrant": asdict(entrant), "judgement": judgement.to_dict()})
        return Judgement.from_dict(read_json(path)["judgement"])

    def _trained(
        self, name: str, entrant: Entrant, training_set: TrainingSet, channels: Sequence[str], series: EventSet
    ) -> tuple[Predictor, dict[str, Any]]:
        """A predictor of the held-out events, and what training it took."""
        size = training_set.settings.size
        if entrant.kind == ZERO:
            return MapPredictor(ZeroTwin(), len(channels) - 1, size), {"parameters": 0, "minutes": 0.0, "epochs": 0}
        trainer = EntrantTrainer(
            folder=str(training_set.folder),
            model=dict(entrant.model),
            config={**self.config, **entrant.config},
            events=str(self.events),
            baseline=self.baseline,
            registry=None,
            device=self.device,
            checkpoints=str(self.folder / "checkpoints" / name),
            pictures_every=0,
            disable_tqdm=self.disable_tqdm,
            run_name=f"{self.run_name}-{name}",
            **self._budget(),
        )
        closed = entrant.kind in CLOSED_FORM
        trainer.fit(training_set) if closed else trainer.execute(training_set)
        twin = trainer.twin.eval()
        predict: Any = trainer.learner.predictor(twin)
        # the twin's own predictor, on the held-out events
        predict = (
            replace(predict, stride=self.settings.stride)
            if isinstance(predict, MapPredictor)
            else replace(predict, events=series)
        )
        facts = {
            "parameters": sum(parameter.numel() for parameter in twin.parameters()),
            "minutes": trainer.minutes,
            "epochs": 0 if closed else trainer.current_epoch + 1,
        }
        if isinstance(twin, WaveformTwin) and twin.explains:
            facts["trust"] = _trust(twin, series, channels, self.settings, self.random_seed)
        return predict, facts

    def _budget(self) -> dict[str, Any]:
        """What all entrants that are trained have in common."""
        limit = {} if self.minutes is None else {"max_minutes": self.minutes}
        return {"epochs": self.epochs, "random_seed": self.random_seed, **limit}

    def _write(self, result: Standings, judgements: Mapping[str, Judgement], held_out: HeldOut) -> dict[str, str]:
        facts = {name: {**one.facts, "seconds": one.seconds} for name, one in judgements.items()}
        outside = held_out.truth.outside
        figures = {
            name: save_figure(figure, self.folder / f"{name}.png")
            for name, figure in figures_of(result, facts, self.settings.threshold, outside).items()
        }
        entrants = write_table(entrants_table(result, facts), self.folder, "entrants")
        kinds = write_table(kinds_table(result, outside), self.folder, "kinds")
        said = introduction(held_out.truth, self.settings, result, self._trained_how())
        names = {name: path.name for name, path in figures.items()}
        page = self.folder / "leaderboard.md"
        with atomic_path(page) as temporary:
            temporary.write_text(page_block(said, result, facts, names, outside) + "\n", encoding="utf-8")
        outputs = {"entrants": str(entrants["csv"]), "kinds": str(kinds["csv"]), "page": str(page)}
        if self.page is not None:
            pictures = Path(self.page).parent / "pictures"
            copies = {name: pictures / f"leaderboard-{self.run_name}-{name}.png" for name in figures}
            for name, figure in figures_of(result, facts, self.settings.threshold, outside).items():
                save_figure(figure, copies[name], dpi=80)
            linked = {name: f"pictures/{path.name}" for name, path in copies.items()}
            block = page_block(said, result, facts, linked, outside)
            insert_block(self.page, "leaderboard", self.run_name, block)
            outputs["results page"] = self.page
        return outputs

    def _trained_how(self) -> str:
        budget = f"at most {self.minutes:g} minutes" if self.minutes is not None else f"at most {self.epochs} epochs"
        device = (
            torch.cuda.get_device_name() if self.device.startswith("cuda") else f"{torch.get_num_threads()} threads"
        )
        return f"Each entrant trained for {budget} on the same events with seed {self.random_seed} ({device})."


def _trust(
    twin: WaveformTwin, series: EventSet, channels: Sequence[str], settings: LeaderboardSettings, seed: int
) -> dict[str, Any]:
    """Coverage of the uncertainty on held-out events, and how new they are to the twin as they are and with a gain."""
    device = twin.variance_noise.device
    generator = torch.Generator().manual_seed(seed)
    batches: list[tuple[Tensor, Tensor]] = []
    strangeness: dict[str, list[float]] = {"held-out events": [], f"a witness {_STRANGE_GAIN:g} times as loud": []}
    for first in range(0, len(series), settings.batch_events):
        read = series.read(range(first, min(first + settings.batch_events, len(series))), list(channels))
        everything = torch.from_numpy(read.series).to(device)
        witnesses = everything[:, 1:]
        batches.append((witnesses, everything[:, :1]))
        gains = torch.ones(witnesses.shape[:2])
        rows = torch.arange(len(gains))
        gains[rows, torch.randint(0, gains.shape[1], (len(gains),), generator=generator)] = _STRANGE_GAIN
        with torch.no_grad():
            shown = (witnesses, witnesses * gains[..., None].to(device))
            for values, changed in zip(strangeness.values(), shown, strict=True):
                p_values = twin.strangeness(twin.explain(changed).summary)
                values.extend(p_values[~p_values.isnan()].tolist())
    by_number = {int(number): coverage(twin, batches, int(number)) for number in _numbers(len(channels) - 1)}
    found = by_number[0]
    return {
        "missing": [_trust_without(twin, batches, number, held) for number, held in by_number.items()],
        "coverage": {
            "all pixels": [list(found.probability), list(found.share)],
            f"glitch predicted ({found.num_loud})": [list(found.probability), list(found.share_loud)],
        },
        "strangeness": strangeness,
    }


def _numbers(most: int) -> np.ndarray:
    """At most ten numbers from 0 to below `most`."""
    return np.unique(np.linspace(0, max(0, most - 1), min(max(1, most), 10)).round())


def _trust_without(
    twin: WaveformTwin, batches: Sequence[tuple[Tensor, Tensor]], missing: int, found: Coverage
) -> dict[str, Any]:
    """Level of the p-value and coverage of the 95 % limits where witnesses are missing, drawn for each event."""
    generator = torch.Generator().manual_seed(missing)
    p_values = []
    for witnesses, _ in batches:
        shown, _ = leave_out(witnesses, missing, generator)
        with torch.no_grad():
            p_values.append(twin.strangeness(twin.explain(shown).summary))
    known = torch.cat(p_values)
    known = known[~known.isnan()]
    place = found.probability.index(0.95)
    return {
        "missing": missing,
        "events": len(known),
        "strange": int((known <= 0.05).sum()),
        "within": found.share[place],
        "within, glitch predicted": found.share_loud[place] if found.num_loud else None,
    }


def _metric(estimate: Any) -> Metric:
    return Metric(estimate.value, estimate.low, estimate.high)
