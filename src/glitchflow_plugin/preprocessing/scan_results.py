"""What a scan leaves: the ranking and its pictures, rounds as Hveto writes them, and a summary."""

from collections.abc import Mapping
from pathlib import Path

from glitchflow_plugin.data.ranking_file import RESULTS_NAME, ChannelRanking, write_ranking
from glitchflow_plugin.data.sharded import EventSet
from glitchflow_plugin.plots.maps import FrequencyAxis
from glitchflow_plugin.plots.scan import scan_pictures
from glitchflow_plugin.preprocessing.ranking import ranking_metrics, ranking_warnings
from glitchflow_plugin.preprocessing.scan import coincidence_examples, rounds_in_time
from glitchflow_plugin.preprocessing.scan_settings import ScanSettings
from glitchflow_plugin.products.hveto import write_hveto
from glitchflow_plugin.products.pictures import save_figure
from glitchflow_plugin.products.summary import EventCounts, RunSummary

_PICTURES = {"correlation": "corr.png", "IoU": "iou.png", "ranking": "ranking.png", "coincidence": "coincidences.png"}


def write_scan(
    events: EventSet,
    ranking: ChannelRanking,
    settings: ScanSettings,
    folder: Path,
    *,
    spikes: Path,
    device: str,
    axis: FrequencyAxis,
) -> dict[str, str]:
    """Write what was found, as files and as pictures.

    Args:
        events: The event set.
        ranking: From `scan_channels`.
        settings: The keys of scan.yaml.
        folder: Folder for the results.
        spikes: Folder of the spikes.
        device: The one that computes the maps of examples.
        axis: Kind of the frequency axis.

    Returns:
        Where all of it is, by name, for the run summary.
    """
    outputs = dict(write_ranking(folder, ranking))
    if settings.hveto and ranking.rounds:
        rounds, where = rounds_in_time(events, ranking, settings, spikes), str(folder / RESULTS_NAME)
        written = write_hveto(folder / "hveto", ranking.target, rounds, configuration=where, call="Annalisa-scan")
        outputs["hveto"] = written[0]
    examples = coincidence_examples(events, ranking, settings, spikes, device=device)
    for name, figure in scan_pictures(ranking, *examples, axis=axis).items():
        outputs[f"{name} picture"] = save_figure(figure, folder / _PICTURES[name])
    return {name: str(path) for name, path in outputs.items()}


def scan_summary(
    events: EventSet, ranking: ChannelRanking, outputs: Mapping[str, str], overlap: str | None, started: str
) -> RunSummary:
    """What a scan found.

    Args:
        events: The event set.
        ranking: From `scan_channels`.
        outputs: From `write_scan`.
        overlap: From `overlap_warning`.
        started: When, ISO 8601, UTC.
    """
    usable = events.valid[:, events.channels.index(ranking.target)]
    unusable = [f"{ranking.target} not valid"] * int((~usable).sum())
    return RunSummary(
        pipeline="preproc_pipeline/Annalisa-scan",
        started=started,
        inputs={"events": str(events.folder), "target": ranking.target, "channels": len(ranking.channels)},
        events=EventCounts.from_reasons(int(usable.sum()), unusable),
        metrics=ranking_metrics(ranking),
        outputs={"selected": ", ".join(ranking.selected) or "none", **outputs},
        warnings=(*([overlap] if overlap else []), *ranking_warnings(ranking)),
    )
