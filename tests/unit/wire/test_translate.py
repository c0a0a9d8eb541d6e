"""Messages and words say the same, both ways."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker import errors
from hivemind_worker.tasks import outcome, spec
from hivemind_worker.wire import translate
from hivemind_worker.wire.generated import nodepool_pb2 as pb

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
plain = st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True)

tasks: st.SearchStrategy[dict[str, object]] = st.builds(
    dict,
    id=st.none() | plain,
    docker_image=st.none() | plain,
    input_files=st.dictionaries(plain, text | st.binary(max_size=20) | st.just({"sha256": "b" * 64}), max_size=3).map(
        lambda files: {f"f-{name}": content for name, content in files.items()}
    ),
    environment=st.dictionaries(plain, text, max_size=3),
    memory_limit=st.none() | st.integers(6 * 2**20, 2**40),
    cpu_quota=st.none() | st.integers(1000, 10**7),
    timeout=st.none() | st.floats(0.001, 10_000),
    disk_limit=st.none() | st.sampled_from(["1g", "10m"]),
    pids_limit=st.none() | st.integers(1, 5000),
    required_resources=st.fixed_dictionaries({}, optional={"cpu_cores": st.integers(0, 8), "gpus": st.integers(0, 4)}),
    network=st.sampled_from(["none", "egress"]),
    priority=st.integers(-10, 10),
    max_attempts=st.none() | st.integers(1, 5),
    labels=st.dictionaries(plain, text, max_size=2),
)
cells = st.none() | st.booleans() | st.integers(-(2**50), 2**50) | st.floats(-1e9, 1e9) | text
learning = st.fixed_dictionaries(
    {
        "model_type": st.just("scikit-learn"),
        "training_data": st.just({"dataset": "wine"})
        | st.fixed_dictionaries(
            {"rows": st.lists(st.fixed_dictionaries({"x": cells, "y": cells}), min_size=1, max_size=3)}
        )
        | st.fixed_dictionaries({"columns": st.fixed_dictionaries({"y": st.lists(cells, min_size=1, max_size=3)})}),
        "target": st.just("y"),
    },
    optional={
        "estimator": st.sampled_from(["SVC", "svm"]),
        "features": st.just(["x"]),
        "hyper_parameters": st.fixed_dictionaries({"C": st.floats(0.1, 10), "kernel": st.just("rbf")}),
        "test_size": st.sampled_from([0, 0.25, 3]),
        "seed": st.sampled_from([0, 2**32 - 1]),
        "cross_validation": st.sampled_from([0, 5]),
        "class_weight": st.sampled_from(["balanced", {"a": 2.5}]),
        "missing": st.just("mean"),
        "calibration": st.just("sigmoid"),
    },
).filter(lambda said: "estimator" in said or "hyper_parameters" not in said)
programs = st.one_of(
    learning,
    st.fixed_dictionaries({"command": st.lists(text, min_size=1, max_size=3).map(lambda words: ["run", *words])}),
    st.fixed_dictionaries({"command": plain}),
    st.fixed_dictionaries({"code": plain, "args": st.lists(text, max_size=3)}),
)


@given(tasks, programs)
def test_a_task_survives_the_wire(common: dict[str, object], program: dict[str, object]) -> None:
    task = spec.parse({**common, **program})
    message = pb.Task.FromString(translate.task_to_message(task).SerializeToString())
    assert translate.task_from_message(message) == task


amounts = st.integers(0, 2**50)
outcomes = st.builds(
    outcome.Outcome,
    status=st.just(outcome.Status.FAILED),
    reason=st.sampled_from(outcome.Reason),
    exit_code=st.none() | st.integers(0, 255),
    signal=st.none() | st.integers(1, 64),
    error=text,
    logs=st.builds(outcome.Logs, text.map(str.encode), amounts, amounts),
    results=st.lists(
        st.builds(
            outcome.ResultFile,
            text,
            st.builds(outcome.Artifact, st.just("c" * 64), amounts),
            st.integers(0, 0o777),
        ),
        max_size=3,
    ).map(tuple),
    skipped=st.lists(st.builds(outcome.SkippedFile, text, text), max_size=2).map(tuple),
    flags=st.frozensets(st.sampled_from(outcome.Flag)),
    limits_hit=st.lists(text, max_size=2).map(tuple),
    usage=st.builds(
        outcome.Usage,
        wall_seconds=st.floats(0, 1e6),
        cpu_seconds=st.none() | st.floats(0, 1e6),
        peak_memory_bytes=st.none() | amounts,
        read_bytes=st.none() | amounts,
        written_bytes=st.none() | amounts,
        processes=st.none() | amounts,
        throttled_seconds=st.none() | st.floats(0, 1e6),
    ),
    limits=st.none() | st.builds(outcome.Limits, amounts, amounts, st.floats(0, 1e6), amounts, amounts),
    image_digest=text,
    isolation=text,
    runtime=text,
    timings=st.dictionaries(text, st.floats(0, 1e6), max_size=3),
)


@given(outcomes)
def test_an_outcome_survives_the_wire(ended: outcome.Outcome) -> None:
    message = pb.TaskResult.FromString(translate.outcome_to_message(ended).SerializeToString())
    assert translate.outcome_from_message(message) == ended


def test_the_references_result_dict_can_be_passed_as_it_is() -> None:
    good = {"status": "completed", "exit_code": 0, "logs": "hi", "result_data": {"a": b"\x00"}}
    # protobuf takes a dict for a message; its types do not say so.
    read = translate.outcome_from_message(pb.ReportTaskResultRequest(result=good).result)  # type: ignore[arg-type]
    assert (read.status, read.reason, read.exit_code, read.logs.text) == ("completed", None, 0, b"hi")
    bad = translate.outcome_from_message(pb.TaskResult(status="failed", exit_code=3, error="x"))
    assert (bad.reason, bad.exit_code) == (outcome.Reason.NONZERO_EXIT, 3)
    gone = translate.outcome_from_message(pb.TaskResult(error="no engine"), status="failed")
    assert (gone.reason, gone.exit_code) == (outcome.Reason.INTERNAL, None)


@pytest.mark.parametrize(
    "message",
    [
        pb.TaskResult(status="splendid"),
        pb.TaskResult(status="failed", reason="mood"),
        pb.TaskResult(status="completed", reason="oom"),
        pb.TaskResult(status="completed", flags=["red"]),
        pb.TaskResult(),
    ],
)
def test_reports_that_contradict_themselves(message: pb.TaskResult) -> None:
    with pytest.raises(errors.Rejected, match="cannot be read"):
        translate.outcome_from_message(message)


def test_tasks_that_say_two_things() -> None:
    with pytest.raises(errors.InvalidTask, match="one command"):
        translate.task_from_message(pb.Task(command="a", argv=["b"]))
    twice = pb.Task(command="a", input_files={"x": b""})
    twice.input_artifacts["x"].sha256 = "a" * 64
    with pytest.raises(errors.InvalidTask, match="given twice"):
        translate.task_from_message(twice)


def test_a_negative_zero_is_zero() -> None:
    """On the wire it is a field that is there."""
    negative = pb.Task(command="x", timeout=-0.0)
    negative.required_resources.CopyFrom(pb.RequiredResources(cpu_cores=-0.0, memory_gb=1))
    assert len(negative.ListFields()) == 3
    zero = pb.Task(command="x")
    zero.required_resources.CopyFrom(pb.RequiredResources(memory_gb=1))
    texts = [
        translate.task_to_message(translate.task_from_message(task)).SerializeToString(deterministic=True)
        for task in (negative, zero)
    ]
    assert texts[0] == texts[1]
