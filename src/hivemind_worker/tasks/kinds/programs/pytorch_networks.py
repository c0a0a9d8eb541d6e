"""PyTorch networks: layers in a row that take raw inputs, and the same with probabilities or the target's units out."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import network_training

_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "elu": nn.ELU, "sigmoid": nn.Sigmoid}
_SMALLEST = 2
"""Images are halved by pooling while both sides are at least so long."""


class Scale(nn.Module):
    """Brings inputs to one scale, by numbers that are no weights."""

    centre: torch.Tensor
    spread: torch.Tensor

    def __init__(self, centre: torch.Tensor, spread: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", centre)
        self.register_buffer("spread", spread)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Rows in, rows out; the last axis is that of the numbers."""
        return (inputs - self.centre) / self.spread


class ChannelsFirst(nn.Module):
    """Images as they lie in files, (height, width, depth), to PyTorch's (depth, height, width)."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Rows in, rows out."""
        return inputs.permute(0, 3, 1, 2)


class Answer(nn.Module):
    """The trained layers with what makes their output readable: probabilities, or numbers in the target's own units."""

    def __init__(self, layers: nn.Sequential, job: network_training.Job) -> None:
        super().__init__()
        self.layers = layers
        self.classification = job.classification
        self.centre = job.target_centre
        self.spread = job.target_spread

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Rows in; a row of probabilities, or one number, for each."""
        raw = self.layers(inputs)
        if self.classification:
            return torch.softmax(raw, dim=1)
        return raw.squeeze(1) * self.spread + self.centre


def build(job: network_training.Job) -> nn.Sequential:
    """The layers, from raw inputs to one number for each class, or one number."""
    said = job.parameters
    layers: list[nn.Module] = [Scale(torch.from_numpy(job.centre), torch.from_numpy(job.spread))]
    width = int(job.inputs.shape[-1])
    if job.estimator == "cnn":
        images, width = _images(job, said)
        layers += images
    for size in said["hidden_layers"]:
        layers.append(nn.Linear(width, size))
        if said["batch_normalization"]:
            layers.append(nn.BatchNorm1d(size))
        layers.append(_ACTIVATIONS[said["activation"]]())
        if said["dropout"]:
            layers.append(nn.Dropout(said["dropout"]))
        width = size
    layers.append(nn.Linear(width, job.outputs))
    return nn.Sequential(*layers)


def _images(job: network_training.Job, said: dict[str, Any]) -> tuple[list[nn.Module], int]:
    height, wide, depth = (int(side) for side in job.inputs.shape[1:])
    layers: list[nn.Module] = [ChannelsFirst()]
    for filters in said["filters"]:
        layers.append(nn.Conv2d(depth, filters, said["kernel_size"], padding="same"))
        if said["batch_normalization"]:
            layers.append(nn.BatchNorm2d(filters))
        layers.append(_ACTIVATIONS[said["activation"]]())
        if min(height, wide) >= _SMALLEST:
            layers.append(nn.MaxPool2d(2))
            height, wide = height // 2, wide // 2
        depth = filters
    return [*layers, nn.Flatten()], depth * height * wide
