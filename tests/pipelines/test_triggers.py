"""The pipelines of triggers as a user runs them: from nothing to a registered model, and each step alone."""

import json

import pyarrow.parquet as pq
import pytest
from tests import _warm

from glitchflow_plugin.data.triggers.formats import read_triggers, write_triggers
from glitchflow_plugin.data.triggers.table import NANOSECONDS
from glitchflow_plugin.products.summary import read_summary

pytestmark = [pytest.mark.slow, pytest.mark.pipeline]

SMALL = (
    "run_name=small",
    "triggers.simulate.duration=24000",
    "triggers.simulate.num_distractors=1",
    "triggers.label.settings.block_length=500",
    "triggers.train.epochs=1",
    "triggers.train.disable_tqdm=true",
    "triggers.train.contest.replicates=100",
    "triggers.train.contest.entrants.boosting=null",
    "triggers.train.contest.entrants.forest={n_estimators: 20, min_samples_leaf: 3}",
    "triggers.train.contest.entrants.condonly=null",
    "triggers.train.contest.entrants.pet=null",
    "triggers.train.contest.entrants.hypertransformer=null",
    "triggers.train.contest.entrants.pointvit={dim: 8, heads: 2, layers: 1}",
    "registry.system_metrics=false",
    "registry.gate.replicates=100",
)


def test_from_nothing_to_answers_and_each_step_alone(tmp_path):
    run = tmp_path / "run"
    _warm.run(tmp_path, "glitchflow", "init", run)
    said = _warm.run(run, "itwinai", "exec-pipeline", "+pipe_key=simulated_triggers_pipeline", *SMALL).stdout
    assert "glitchflow-small-triggers version 1" in said
    board = json.loads((run / "temp/small/triggers/training/leaderboard.json").read_text())
    assert set(board["entrants"]) == {"forest", "pointvit"}
    first = pq.read_table(run / "classified/small/small-v1/classified.parquet")
    assert len(first) == read_summary(run / "classified/small/small-v1").metrics["times"].value > 1000
    # the second half of the pipeline again, from what is on disk: a version that is no better is not promoted
    alone = ("+pipe_key=triggers_pipeline", "+pipe_steps=[Label,Split,Train]", *SMALL)
    _warm.run(run, "itwinai", "exec-pipeline", *alone)
    assert "not promoted: against version 1" in read_summary(run / "temp/small/triggers/training").warnings[0]
    # one step alone, on a file of others, by the alias
    table = read_triggers(run / "triggers/small")
    write_triggers(table.filter(table["time"].to_numpy() < 1_400_003_000 * NANOSECONDS), run / "theirs.csv", "csv")
    alone = ("+pipe_key=triggers_pipeline", "+pipe_steps=[Classify]", "triggers.classify.triggers=theirs.csv", *SMALL)
    _warm.run(run, "itwinai", "exec-pipeline", *alone)
    theirs = pq.read_table(run / "classified/small/theirs-v1/classified.parquet").to_pandas().set_index("time")
    # but for the last ones, whose triggers go on beyond the file
    early = theirs[theirs.index < 1_400_002_900 * NANOSECONDS]["glitch"]
    assert len(early) > 100
    assert (early == first.to_pandas().set_index("time").loc[early.index, "glitch"]).all()
    shown = _warm.run(run, "glitchflow", "show", "classified").stdout
    assert "triggers_pipeline/Classify" in shown
