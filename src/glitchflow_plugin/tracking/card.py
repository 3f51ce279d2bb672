"""What a person chooses a model by: a page in Markdown, and tags to search by, made from the description of a bundle.

MLflow's pages leave out everything of Markdown and HTML that sets widths or distances.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

#: Figures by which models are chosen: beginning of the name in `Scores.metrics`, tag, and what it says.
FIGURES = (
    ("balanced_veto_accuracy", "balanced_veto_accuracy", "balanced veto accuracy", "glitches within their time"),
    ("veto_roc_auc", "veto_roc_area", "veto ROC area", "glitches within their time"),
    ("cleaned_share", "cleaned_share", "cleaned share", "glitches brought below the threshold, no energy added"),
    ("net_power_removed", "net_power_removed", "net power removed", "from the glitches, less what is added anywhere"),
    ("harmed_share", "harm", "harm", "quiet events lifted above the threshold, or grown"),
)
_RIVALS = (("model", "this model"), ("linear", "linear filter"), ("zero", "no prediction"))
_SPACE = "&emsp;"
_MOST_TEXT = 5000
#: Witnesses that the page of a version names; its tag, and `glitchflow models compare`, know all.
_MOST_NAMES = 40


def tags(content: Mapping[str, Any]) -> dict[str, str]:
    """Tags of a version.

    Args:
        content: Description of the model, as `ModelBundle.to_dict` gives it.

    Returns:
        The figures of the test events (without any: of validation), the data, band, witnesses and network.
    """
    judged, figures = _figures(content)
    found = {tag: f"{figures[tag]['model']['value']:.4f}" for _, tag, *_ in FIGURES if tag in figures}
    about = {**_data(content), "witnesses": ", ".join(content.get("witnesses", ())), "network": _network(content)}
    about["target"] = str(content.get("target", ""))
    return {**found, "judged_on": judged, **{key: text for key, text in about.items() if text}}


def page(content: Mapping[str, Any], *, run_id: str, pictures: Sequence[str] = ()) -> str:
    """Description of a version, in Markdown.

    Args:
        content: Description of the model, as `ModelBundle.to_dict` gives it.
        run_id: MLflow run that holds the pictures.
        pictures: Their paths there.
    """
    judged, figures = _figures(content)
    witnesses = list(content.get("witnesses", ()))
    more = len(witnesses) - _MOST_NAMES
    lines = [f"What {len(witnesses)} witness channels tell of the glitches in **{content.get('target')}**.", ""]
    if figures:
        rivals = [(key, name) for key, name in _RIVALS if any(key in each for each in figures.values())]
        lines += _table(
            [f"on {judged}, 95 % interval", *(name for _, name in rivals)],
            [
                [f"{name} ({meaning})", *(_estimate(figures[tag].get(key), whole=key == "model") for key, _ in rivals)]
                for _, tag, name, meaning in FIGURES
                if tag in figures
            ],
        )
    data = _data(content)
    notes = content.get("notes", {})
    trained = [f"{notes['epochs']} epochs" if "epochs" in notes else "", f"random seed {notes.get('random_seed', '-')}"]
    events = notes.get("events") or {}
    rows = [
        ("data set", data.get("dataset", "")),
        ("GPS range", " to ".join(data[key] for key in ("gps_start", "gps_end") if key in data)),
        ("events", ", ".join(f"{part} {number}" for part, number in events.items())),
        ("band", data.get("band", "")),
        ("glitch threshold", f"SNR² {notes['threshold']:g}" if "threshold" in notes else ""),
        ("witnesses", ", ".join(witnesses[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")),
        ("network", ", ".join(part for part in (_network(content), *trained) if part)),
    ]
    lines += ["Made from:", "", *_table(["", ""], [[f"**{name}**", text] for name, text in rows if text])]
    for path in pictures:
        lines += [f"![{path}](get-artifact?path={quote(path, safe='')}&run_uuid={run_id})", ""]
    return "\n".join(lines).rstrip()[:_MOST_TEXT]


def model_page(name: str, versions: Mapping[int, Mapping[str, str]], alias: str) -> str:
    """Description of a registered model: its versions beside each other, the newest first.

    Args:
        name: Name of the model.
        versions: Tags of each version.
        alias: Alias of the champion.
    """
    rows = []
    for number in sorted(versions, reverse=True)[:20]:
        tagged = versions[number]
        shown = [tagged.get(tag, "-") for tag in (*(tag for _, tag, *_ in FIGURES), "dataset", "band")]
        rows.append([f"[{number}]({address(name, number)})", *shown])
    target = next((text for tagged in versions.values() if (text := tagged.get("target"))), "the target")
    lines = [
        f"Twin of the glitches that witness channels explain in **{target}**. Inference takes the version with the "
        f"alias **{alias}**: the gate gives it, or `glitchflow models promote {name} VERSION`.",
        "",
        *_table(["version", *(name for _, _, name, _ in FIGURES), "data set", "band"], rows),
    ]
    return "\n".join(lines).rstrip()


def address(name: str, version: int) -> str:
    """Address of the page of a version, from that of the server; it shows the view of training, not of GenAI."""
    return f"#/models/{quote(name, safe='')}/versions/{version}?workflowType=machine_learning"


def _figures(content: Mapping[str, Any]) -> tuple[str, dict[str, dict[str, Mapping[str, Any]]]]:
    """What was judged on, and estimates by tag and rival."""
    notes = content.get("notes", {})
    scores = notes.get("test") or {}
    judged = f"{(notes.get('events') or {}).get('test', '')} test events".strip()
    if not scores.get("model"):
        judged = "validation events, which chose the checkpoint"
        own = {
            key.removeprefix("validation_"): {"value": value} for key, value in (content.get("metrics") or {}).items()
        }
        scores = {"model": own}
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for start, tag, *_ in FIGURES:
        for rival, _ in _RIVALS:
            for key, estimate in (scores.get(rival) or {}).items():
                if key.startswith(start) and estimate.get("value") is not None:
                    found.setdefault(tag, {})[rival] = estimate
    return judged, {tag: each for tag, each in found.items() if "model" in each}


def _data(content: Mapping[str, Any]) -> dict[str, str]:
    notes, rows = content.get("notes", {}), content.get("frequencies") or ()
    digest = str(content.get("dataset") or "")[:12]
    name = notes.get("dataset_name")
    found = {"dataset": f"{name} ({digest})" if name and digest else name or digest}
    if notes.get("gps"):
        found |= {key: f"{value:.3f}" for key, value in zip(("gps_start", "gps_end"), notes["gps"], strict=True)}
    if rows:
        found["band"] = f"{rows[0]:g} to {rows[-1]:g} Hz"
    return {key: text for key, text in found.items() if text}


def _network(content: Mapping[str, Any]) -> str:
    return str((content.get("model") or {}).get("name", ""))


def _estimate(estimate: Mapping[str, Any] | None, *, whole: bool) -> str:
    """One figure, of the model itself with its interval."""
    if estimate is None:
        return "-"
    value, low, high = f"{estimate['value']:.3f}", estimate.get("low"), estimate.get("high")
    if not whole:
        return value
    return f"**{value}**" if low is None or high is None else f"**{value}** ({low:.2f} to {high:.2f})"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    first, *others = [
        "| " + " | ".join(f"{cell}{_SPACE}".replace("|", "/") for cell in row) + " |" for row in (header, *rows)
    ]
    return [first, "|" + ":---|" * len(header), *others, ""]
