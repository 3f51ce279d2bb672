import csv
from dataclasses import replace

import numpy as np
import pytest
import yaml

from glitchflow_plugin.data.ranking_file import ChannelRanking, read_channel_list, read_ranking, write_ranking
from glitchflow_plugin.errors import FormatError


@pytest.fixture
def ranking():
    return ChannelRanking(
        target="STRAIN",
        channels=("GOOD", "POOR", "DEAD"),
        correlation=np.array([0.9, 0.1, np.nan]),
        iou=np.array([0.5, 0.05, np.nan]),
        chance=np.array([0.0, 0.02, np.nan]),
        events=np.array([10, 10, 0]),
        strain_spikes=np.array([10, 10, 0]),
        witness_spikes=np.array([17, 12, 0]),
        shared_spikes=np.array([9, 1, 0]),
        selected=("GOOD",),
        parameters={"threshold": 20.0, "frange": [8.0, 400.0], "refchan": None},
        event_set="abc",
    )


def test_ranking_comes_back_as_it_was(tmp_path, ranking):
    write_ranking(tmp_path, ranking)
    for path in (tmp_path, tmp_path / "results.yaml"):
        read = read_ranking(path)
        for name in ("target", "channels", "selected", "parameters", "event_set"):
            assert getattr(read, name) == getattr(ranking, name)
        for name in ("correlation", "iou", "chance", "events", "strain_spikes", "witness_spikes", "shared_spikes"):
            np.testing.assert_array_equal(getattr(read, name), getattr(ranking, name))
            assert getattr(read, name).dtype == getattr(ranking, name).dtype


def test_results_are_plain_yaml_with_the_fields_names(tmp_path, ranking):
    content = yaml.safe_load(write_ranking(tmp_path, ranking)["results"].read_text())
    assert {"parameters", "channels", "correlation", "iou", "selected"} <= set(content)
    assert np.isnan(content["correlation"][2])


def test_table_has_a_row_a_channel_and_nothing_where_nothing_is_known(tmp_path, ranking):
    with write_ranking(tmp_path, ranking)["table"].open() as file:
        rows = list(csv.DictReader(file))
    assert [row["channel"] for row in rows] == ["GOOD", "POOR", "DEAD"]
    assert [row["selected"] for row in rows] == ["True", "False", "False"]
    assert rows[2]["correlation"] == ""
    assert float(rows[0]["correlation"]) == 0.9


def test_selection_is_a_channel_list(tmp_path, ranking):
    assert read_channel_list(write_ranking(tmp_path, ranking)["selection"]) == ("GOOD",)


def test_channel_list_skips_comments_and_refuses_doubles(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("# mine\nA\n\n  B  \n")
    assert read_channel_list(path) == ("A", "B")
    path.write_text("A\nA\n")
    with pytest.raises(FormatError, match="twice"):
        read_channel_list(path)
    path.write_text("# none\n")
    with pytest.raises(FormatError, match="names no channel"):
        read_channel_list(path)
    with pytest.raises(FormatError, match="does not exist"):
        read_channel_list(tmp_path / "missing.txt")


def test_unreadable_results_say_what_to_do(tmp_path, ranking):
    with pytest.raises(FormatError, match="Run the step Annalisa-scan"):
        read_ranking(tmp_path)
    path = write_ranking(tmp_path, ranking)["results"]
    for text, words in (("a: [1", "not valid YAML"), ("", "not the result"), ("format_version: 99", "99")):
        path.write_text(text)
        with pytest.raises(FormatError, match=words):
            read_ranking(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"correlation": np.zeros(2)},
        {"selected": ("OTHER",)},
        {"target": "GOOD"},
        {"channels": ("GOOD", "GOOD", "DEAD")},
    ],
)
def test_contradictions_are_refused(ranking, wrong):
    with pytest.raises(FormatError):
        replace(ranking, **wrong)
