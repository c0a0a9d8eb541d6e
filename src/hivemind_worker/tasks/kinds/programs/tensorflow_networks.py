"""Keras networks: layers in a row that take raw inputs, and the same with probabilities or the target's units out."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

import network_training

_SMALLEST = 2
"""Images are halved by pooling while both sides are at least so long."""


def build(job: network_training.Job) -> tuple[keras.Model, keras.Model]:
    """Return the network that is trained, and the one that is kept: its answers are readable."""
    said = job.parameters
    shape = tuple(int(side) for side in job.inputs.shape[1:])
    inputs = keras.Input(shape, name="features")
    flow = layers.Normalization(mean=job.centre, variance=np.square(job.spread))(inputs)
    if job.estimator == "cnn":
        flow = _images(flow, shape, said)
    for size in said["hidden_layers"]:
        flow = layers.Dense(size)(flow)
        if said["batch_normalization"]:
            flow = layers.BatchNormalization()(flow)
        flow = layers.Activation(said["activation"])(flow)
        if said["dropout"]:
            flow = layers.Dropout(said["dropout"])(flow)
    raw = layers.Dense(job.outputs)(flow)
    if job.classification:
        answer = layers.Softmax(name="probabilities")(raw)
    else:
        answer = layers.Rescaling(job.target_spread, job.target_centre, name="number")(raw)
    return keras.Model(inputs, raw), keras.Model(inputs, answer)


def _images(flow: Any, shape: tuple[int, ...], said: dict[str, Any]) -> Any:
    height, wide = shape[:2]
    for filters in said["filters"]:
        flow = layers.Conv2D(filters, said["kernel_size"], padding="same")(flow)
        if said["batch_normalization"]:
            flow = layers.BatchNormalization()(flow)
        flow = layers.Activation(said["activation"])(flow)
        if min(height, wide) >= _SMALLEST:
            flow = layers.MaxPooling2D(2)(flow)
            height, wide = height // 2, wide // 2
    return layers.Flatten()(flow)
