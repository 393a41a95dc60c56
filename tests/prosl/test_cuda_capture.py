"""How CudaRecorder calls torch: streams, generators, order, and what is said when a capture fails."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from prosl_lightning.errors import UsageError
from prosl_lightning.prosl import cuda_graph


class Device:
    """In place of torch's CUDA calls: tells in which order and on which stream they are made."""

    def __init__(self, monkeypatch, fault: BaseException | None = None) -> None:
        self.told, self.stream = [], "default"
        told = self.told

        class Graph:
            def register_generator_state(self, generator):
                told.append(("register", generator))

            def replay(self):
                told.append("replay")

        class Stream:
            def __init__(self, name="own"):
                self.name = name

            def wait_stream(self, other):
                told.append(f"{self.name} waits for {other.name}")

        @contextmanager
        def on(stream):
            before, self.stream = self.stream, stream.name
            yield
            self.stream = before

        @contextmanager
        def recording(graph, stream, capture_error_mode):
            assert capture_error_mode == "thread_local"
            with on(stream):
                try:
                    yield
                finally:
                    if fault is not None:
                        raise RuntimeError("operation failed due to a previous error during capture")

        for name, value in {
            "CUDAGraph": Graph, "Stream": lambda _: Stream(), "current_stream": lambda _: Stream("default"),
            "stream": on, "graph": recording,
        }.items():  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, value)

    def step(self):
        self.told.append(f"step on {self.stream}")
        return {"loss": torch.ones(())}


def test_steps_run_where_they_are_recorded_and_generators_are_known_before(monkeypatch):
    device, draw = Device(monkeypatch), torch.Generator()
    recorder = cuda_graph.CudaRecorder(torch.device("cuda"))
    assert float(recorder.run(device.step)["loss"]) == 1
    replay = recorder.record(device.step, draw)
    assert device.told == [
        "own waits for default", "step on own", "default waits for own", ("register", draw), "step on own",
    ]  # fmt: skip
    assert replay() is replay()
    assert device.told[-2:] == ["replay", "replay"]


def test_replays_that_share_a_generator_run_one_after_another(monkeypatch):
    told = []

    class Stream:
        def __init__(self, name):
            self.name = name

        def wait_event(self, event):
            told.append(f"{self.name} waits for {event}")

        def record_event(self):
            return f"end of {self.name}"

    device, current = torch.device("cuda", 3), []
    monkeypatch.setattr(cuda_graph, "_LAST_REPLAY", {})
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream(current[-1]))
    for name in ("first", "second", "third"):
        current.append(name)
        replay = cuda_graph.one_after_another(lambda name=name: told.append(f"replay on {name}"), device)
        replay()
    assert told == [
        "replay on first", "second waits for end of first", "replay on second", "third waits for end of second",
        "replay on third",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "expected", "text"),
    [
        (
            RuntimeError("no .item() here\nmore"),
            UsageError,
            r"cannot be recorded as a CUDA graph \(no .item\(\) here\): .*base_args.packed_levels to false$",
        ),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), torch.cuda.OutOfMemoryError, "^CUDA out of memory$"),
    ],
)
def test_what_cannot_be_recorded_is_told(monkeypatch, fault, expected, text):
    Device(monkeypatch, fault)

    def step():
        raise fault

    with pytest.raises(expected, match=text):
        cuda_graph.CudaRecorder(torch.device("cuda")).record(step, torch.Generator())
