import csv
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml

from glitchflow_plugin.data.channels import read_channel_list
from glitchflow_plugin.data.ranking_file import (
    ChannelRanking,
    RankingRound,
    read_ranking,
    write_ranking,
)
from glitchflow_plugin.errors import FormatError

REAL = (
    *("correlation", "iou", "chance", "p_value", "p_common", "q_value", "significance", "efficiency", "deadtime"),
    *("efficiency_over_deadtime", "use_percentage", "lag", "lag_error", "safety_p_value"),
)
WHOLE = ("events", "strain_spikes", "witness_spikes", "shared_spikes", "round", "family")


@pytest.fixture
def ranking():
    rng = np.random.default_rng(0)
    columns = {name: np.append(rng.random(2), np.nan) for name in REAL}
    return ChannelRanking(
        target="STRAIN",
        channels=("GOOD", "POOR", "DEAD"),
        **columns | {"correlation": np.array([0.9, 0.1, np.nan]), "p_value": np.array([2.2e-308, 1.0, np.nan])},
        **{name: rng.integers(0, 99, 3) for name in WHOLE},
        representative=np.array([True, False, False]),
        selected=("GOOD",),
        rounds=(RankingRound(1, "GOOD", 9, 10, 12.5, 1e-9, 1e-8, 0.9, 0.9, 0.1, 53.0),),
        unsafe={"POOR": "listed"},
        overridden={"GOOD": "coincides with the injections, p = 1e-05"},
        parameters={"threshold": 20.0, "frange": [8.0, 400.0], "refchan": None},
        event_set="abc",
    )


def test_ranking_comes_back_as_it_was(tmp_path, ranking):
    write_ranking(tmp_path, ranking)
    for path in (tmp_path, tmp_path / "results.yaml"):
        read = read_ranking(path)
        for name in vars(ranking):
            one, other = getattr(read, name), getattr(ranking, name)
            if isinstance(other, np.ndarray):
                np.testing.assert_array_equal(one, other)
                assert one.dtype == other.dtype
            else:
                assert one == other, name


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
    assert float(rows[0]["p_value"]) == 2.2e-308
    assert [row["unsafe"] for row in rows] == ["", "listed", ""]


def test_parquet_holds_the_same_table_without_loss(tmp_path, ranking):
    pd.testing.assert_frame_equal(pd.read_parquet(write_ranking(tmp_path, ranking)["parquet"]), ranking.table())


def test_selection_is_a_channel_list(tmp_path, ranking):
    assert read_channel_list(write_ranking(tmp_path, ranking)["selection"]) == ("GOOD",)


def test_unreadable_results_say_what_to_do(tmp_path, ranking):
    with pytest.raises(FormatError, match="Run the step Annalisa-scan"):
        read_ranking(tmp_path)
    path = write_ranking(tmp_path, ranking)["results"]
    for text, words in (("a: [1", "not valid YAML"), ("", "expected a record"), ("format_version: 99", "99")):
        path.write_text(text)
        with pytest.raises(FormatError, match=words):
            read_ranking(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"correlation": np.zeros(2)},
        {"selected": ("OTHER",)},
        {"selected": ("POOR",)},
        {"unsafe": {"OTHER": "listed"}},
        {"target": "GOOD"},
        {"channels": ("GOOD", "GOOD", "DEAD")},
    ],
)
def test_contradictions_are_refused(ranking, wrong):
    with pytest.raises(FormatError):
        replace(ranking, **wrong)
