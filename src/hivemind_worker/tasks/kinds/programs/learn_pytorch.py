"""Trains a network of PyTorch, and keeps it as weights and as TorchScript, which runs without any code of ours."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import given
import network_training
import pytorch_networks

Array = npt.NDArray[Any]
_ROWS_AT_ONCE = 1_024


def learn(settings: dict[str, Any]) -> int:
    """Train with PyTorch. 0 when the results are there."""
    torch.set_num_threads(given.threads())
    torch.use_deterministic_algorithms(mode=True)
    return network_training.learn(settings, train)


class Network:
    """A trained network."""

    def __init__(self, layers: nn.Sequential, job: network_training.Job, kept: int) -> None:
        self.kept = kept
        self.description = str(layers)
        self.weights = sum(each.numel() for each in layers.parameters())
        self._answer = pytorch_networks.Answer(layers, job).to("cpu").eval()
        self._example = torch.from_numpy(job.inputs[:2])

    def predict(self, inputs: Array) -> Array:
        """Probabilities, or numbers in the target's own units."""
        with torch.inference_mode():
            parts = [self._answer(part) for part in torch.from_numpy(inputs).split(_ROWS_AT_ONCE)]
        answered: Array = torch.cat(parts).numpy()
        return answered

    def save(self, about: dict[str, Any]) -> list[str]:
        """Write model.pt, which `torch.load(…, weights_only=True)` reads, and model.torchscript.pt."""
        content = {"state_dict": self._answer.layers.state_dict(), "layers": self.description, **about}
        torch.save(content, given.RESULTS / "model.pt")
        with torch.no_grad():
            torch.jit.save(torch.jit.trace(self._answer, self._example), given.RESULTS / "model.torchscript.pt")
        return ["model.pt", "model.torchscript.pt"]


def train(job: network_training.Job) -> Network:
    """Train by the job, on the GPU where the task was given one."""
    torch.manual_seed(job.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layers = pytorch_networks.build(job).to(device)
    optimizer = _optimizer(layers, job.parameters)
    weights = None if job.class_weights is None else torch.from_numpy(job.class_weights).to(device)
    loss_of: nn.Module = nn.CrossEntropyLoss(weight=weights) if job.classification else nn.MSELoss()
    inputs, targets = _tensors(job.inputs, job.targets, device)
    held_back = None if job.held_back is None else _tensors(*job.held_back, device)
    shuffle = torch.Generator().manual_seed(job.seed)
    best, best_layers, kept = math.inf, None, 0
    for epoch in range(1, job.epochs + 1):
        layers.train()
        total = torch.zeros((), device=device)
        for rows in _batches(len(targets), job.batch_size, shuffle):
            optimizer.zero_grad()
            loss = loss_of(_shaped(layers(inputs[rows]), job), targets[rows])
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(rows)
        seen = _loss(layers, loss_of, held_back, job) if held_back is not None else math.nan
        job.say(epoch, float(total) / len(targets), seen)
        if job.patience:
            if seen < best:
                best, best_layers, kept = seen, copy.deepcopy(layers.state_dict()), epoch
            elif epoch - kept >= job.patience:
                print(f"no better for {job.patience} epochs: stopped, the weights of epoch {kept} are kept")
                break
        else:
            kept = epoch
    if best_layers is not None:
        layers.load_state_dict(best_layers)
    return Network(layers, job, kept)


def _tensors(inputs: Array, targets: Array, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(np.ascontiguousarray(inputs)).to(device), torch.from_numpy(targets).to(device)


def _batches(count: int, size: int, shuffle: torch.Generator) -> list[torch.Tensor]:
    """Rows in a new order; a single row left over joins no batch, since normalization over one row is none."""
    parts = list(torch.randperm(count, generator=shuffle).split(size))
    return parts[:-1] if len(parts) > 1 and len(parts[-1]) == 1 else parts


def _shaped(output: torch.Tensor, job: network_training.Job) -> torch.Tensor:
    return output if job.classification else output.squeeze(1)


def _loss(
    layers: nn.Sequential, loss_of: nn.Module, rows: tuple[torch.Tensor, torch.Tensor], job: network_training.Job
) -> float:
    layers.eval()
    total = 0.0
    with torch.inference_mode():
        parts = zip(*(each.split(_ROWS_AT_ONCE) for each in rows), strict=True)
        for inputs, targets in parts:
            total += float(loss_of(_shaped(layers(inputs), job), targets)) * len(targets)
    return total / len(rows[1])


def _optimizer(layers: nn.Sequential, said: dict[str, Any]) -> torch.optim.Optimizer:
    rate, decay = said["learning_rate"], said["weight_decay"]
    weights = layers.parameters()
    if said["optimizer"] == "sgd":
        return torch.optim.SGD(weights, lr=rate, weight_decay=decay, momentum=said["momentum"])
    if said["optimizer"] == "rmsprop":
        return torch.optim.RMSprop(weights, lr=rate, weight_decay=decay, momentum=said["momentum"])
    kind = torch.optim.AdamW if said["optimizer"] == "adamw" else torch.optim.Adam
    return kind(weights, lr=rate, weight_decay=decay)
