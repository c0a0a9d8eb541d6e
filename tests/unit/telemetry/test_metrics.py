from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import parser

from hivemind_worker.telemetry import metrics

ALL = [*metrics.WORKER, *metrics.POOL]


def _samples(meters: metrics.Meters) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text, kind = meters.exposition()
    assert kind.startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_every_metric_of_the_file_is_in_its_list_once() -> None:
    defined = [value for value in vars(metrics).values() if isinstance(value, metrics.Metric)]
    assert sorted(each.name for each in defined) == sorted(each.name for each in ALL)
    assert len({each.name for each in ALL}) == len(ALL)


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_names_say_whose_and_which_base_unit(metric: metrics.Metric) -> None:
    assert metric.name.startswith("hivemind_worker_" if metric in metrics.WORKER else "hivemind_pool_")
    assert metric.help.endswith(".")
    assert metric.name.endswith("_total") is (metric.kind is metrics.Kind.COUNTER)
    assert not any(unit in metric.name for unit in ("percent", "_ms", "milliseconds", "megabytes", "_kb", "_gb"))
    assert not {"task_id", "task", "id", "image", "attempt"} & set(metric.labels)


def test_the_page_for_operators_names_metrics_that_there_are() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
    named = set(re.findall(r"hivemind_(?:worker|pool)_[a-z0-9_]+", page))
    assert len(named) >= 8
    assert named <= {metric.name for metric in ALL}


def test_what_is_counted_is_what_is_written() -> None:
    meters = metrics.Meters(metrics.WORKER)
    meters.count(metrics.WORKER_ENDED, "failed", "timeout")
    meters.count(metrics.WORKER_ENDED, "failed", "timeout", by=2)
    meters.set(metrics.HOST_CPU, 0.25)
    for seconds in (0.005, 0.2, 7200.0):
        meters.observe(metrics.WORKER_STEP, seconds, 'odd "step"\n')
    found = _samples(meters)
    assert found["hivemind_worker_attempts_ended_total", (("reason", "timeout"), ("status", "failed"))] == 3.0
    assert found["hivemind_worker_host_cpu_ratio", ()] == 0.25
    assert found["hivemind_worker_attempts_accepted_total", ()] == 0.0
    step = ("step", 'odd "step"\n')
    assert found["hivemind_worker_step_seconds_count", (step,)] == 3.0
    assert found["hivemind_worker_step_seconds_sum", (step,)] == pytest.approx(7200.205)
    assert found["hivemind_worker_step_seconds_bucket", (("le", "0.005"), step)] == 1.0  # a bound holds what equals it
    assert found["hivemind_worker_step_seconds_bucket", (("le", "3600.0"), step)] == 2.0
    assert found["hivemind_worker_step_seconds_bucket", (("le", "+Inf"), step)] == 3.0


def test_what_is_set_together_forgets_what_is_gone() -> None:
    meters = metrics.Meters(metrics.POOL)
    meters.set_all(metrics.POOL_NODES, {"idle": 2, "lost": 1})
    meters.set_all(metrics.POOL_NODES, {"idle": 1})
    assert meters.value(metrics.POOL_NODES, "lost") == 0.0
    nodes = {key: value for key, value in _samples(meters).items() if key[0] == "hivemind_pool_nodes"}
    assert nodes == {("hivemind_pool_nodes", (("status", "idle"),)): 1.0}


def test_a_wrong_label_is_a_defect_at_once() -> None:
    meters = metrics.Meters(metrics.WORKER)
    with pytest.raises(ValueError, match="has the labels"):
        meters.count(metrics.WORKER_ENDED, "failed")
    with pytest.raises(KeyError):
        meters.count(metrics.POOL_SUBMITTED)
