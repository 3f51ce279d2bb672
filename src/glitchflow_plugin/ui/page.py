"""The page itself, which `glitchflow ui` has Streamlit run: what is asked for, and what came of it."""

import os

import altair
import pandas as pd
import streamlit as st

from glitchflow_plugin.data.readers.trigger_files import SUFFIXES
from glitchflow_plugin.data.triggers.table import NANOSECONDS
from glitchflow_plugin.errors import GlitchflowError
from glitchflow_plugin.inference.classify_triggers import OTHER_TIMES, known_labels
from glitchflow_plugin.models.triggers.bundle import TriggerModel
from glitchflow_plugin.plots.curves import COLOURS
from glitchflow_plugin.plots.style import GREY
from glitchflow_plugin.products.classified import EXPLAINED, HEADINGS, QUIET
from glitchflow_plugin.tracking.trigger_models import load_trigger_model, trigger_versions
from glitchflow_plugin.tracking.versions import ModelVersion
from glitchflow_plugin.ui.answers import Answered, Dropped, answers, chosen
from glitchflow_plugin.ui.environment import REGISTRY_VARIABLE

_DRAWN = 5000
"""Times that are drawn at most."""


def main() -> None:
    """Show the page."""
    st.set_page_config(page_title="Triggers: what a model says", layout="wide")
    st.title("What a registered model says of triggers")
    try:
        _page(os.environ[REGISTRY_VARIABLE])
    except GlitchflowError as error:
        st.error(str(error))


def _page(uri: str) -> None:
    versions = trigger_versions(uri)
    if not versions:
        st.info("No model of triggers is registered yet. The step Train of triggers_pipeline registers one.")
        return
    version = st.selectbox("Model", versions, format_func=_called)
    model = _model(version.name, version.version, uri)
    auc = model.metrics.get("test_auc")
    worth = "" if auc is None else f" On held-out times the area under its ROC is {auc:.3f}."
    st.caption(f"Strain: {model.target}, whose triggers it never sees. It knows {len(model.channels)} channels.{worth}")
    if (labels := known_labels(model)).times != "witnesses":
        st.warning(OTHER_TIMES[labels.times])
    kinds = "Omicron or SNAX HDF5, LIGO_LW, CSV, text or Parquet"
    endings = [one[1:] for one in SUFFIXES]
    uploaded = st.file_uploader(f"Files of triggers: {kinds}", type=endings, accept_multiple_files=True)
    channel = st.text_input("Their channel, where the files do not tell it", placeholder="V1:ENV_MIC") or None
    if not uploaded:
        return
    with st.spinner("The model is asked"):
        answered = _answers(
            version.name, version.version, uri, [(one.name, one.getvalue()) for one in uploaded], channel
        )
    _show(answered)


def _called(version: ModelVersion) -> str:
    aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
    return f"{version.name} version {version.version}{aliases}, {version.tags.get('network', '')}"


@st.cache_resource(max_entries=2, show_spinner="The model is loaded")
def _model(name: str, version: int, uri: str) -> TriggerModel:
    return load_trigger_model(name, version, uri)[0]


@st.cache_resource(max_entries=2, show_spinner=False)
def _answers(name: str, version: int, uri: str, dropped: list[tuple[str, bytes]], channel: str | None) -> Answered:
    who = f"{name} version {version}"
    return answers(_model(name, version, uri), who, [Dropped(*one) for one in dropped], channel=channel)


def _show(answered: Answered) -> None:
    for reason, number in answered.bad.items():
        st.warning(f"{number} row(s) left out: {reason}")
    if answered.unknown:
        st.warning(f"Channels that the model does not know count as UNKNOWN: {', '.join(sorted(answered.unknown))}")
    times = answered.times
    figures = (
        ("times", len(times)),
        ("glitches expected", f"{times['glitch'].sum():.1f}"),
        ("triggers read", sum(answered.triggers.values())),
    )
    for column, (label, value) in zip(st.columns(len(figures)), figures, strict=True):
        column.metric(label, value)
    left, middle, right = st.columns(3)
    shown = chosen(
        times,
        channels=left.multiselect("Loudest channel", sorted(set(times["channel"]) - {""})),
        words=middle.multiselect("Said", sorted(set(times["said"]))),
        least=right.slider("Least probability of a glitch", 0.0, 1.0, 0.0, 0.01),
    )
    st.write(f"{len(shown)} of {len(times)} times")
    _draw(shown)
    table = shown[[name for name in HEADINGS if name in shown]].rename(columns=dict(HEADINGS))
    st.dataframe(table, hide_index=True)
    st.caption(EXPLAINED)
    for kind, content in answered.files.items():
        st.download_button(f"All times as {kind.upper()}", content, f"classified.{kind}", on_click="ignore")


def _draw(shown: pd.DataFrame) -> None:
    """Times by GPS time and probability, and how many of each channel, in colours by what is said; quiet ones grey."""
    if shown.empty:
        return
    drawn = shown.nlargest(_DRAWN, "glitch")
    if len(drawn) < len(shown):
        st.caption(f"The {_DRAWN} of the highest probabilities are drawn.")
    words = sorted(set(shown["said"]), key=lambda word: (word != QUIET, word))
    colours = [GREY] * (QUIET in words) + [one for one in COLOURS if one != GREY] * len(words)
    said = altair.Color("said", scale=altair.Scale(domain=words, range=colours[: len(words)]))
    first = int(drawn["time"].min()) // NANOSECONDS
    points = pd.DataFrame(
        {"since": (drawn["time"] - first * NANOSECONDS) / NANOSECONDS, "glitch": drawn["glitch"], "said": drawn["said"]}
    )
    since = altair.X("since", title=f"time from GPS {first} [s]")
    where = altair.Chart(points).mark_circle().encode(since, altair.Y("glitch", title="probability of a glitch"), said)
    st.altair_chart(where)
    counts = shown.groupby(["channel", "said"], as_index=False).size()
    channel = altair.X("channel", title="loudest channel")
    st.altair_chart(altair.Chart(counts).mark_bar().encode(channel, altair.Y("size", title="times"), said))


if __name__ == "__main__":
    main()
