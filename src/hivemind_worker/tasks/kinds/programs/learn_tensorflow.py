"""Trains a network of TensorFlow through Keras, and keeps it as a .keras file."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

import given
import network_training
import tensorflow_networks

Array = npt.NDArray[Any]
_ROWS_AT_ONCE = 1_024


def learn(settings: dict[str, Any]) -> int:
    """Train with TensorFlow. 0 when the results are there."""
    tf.config.experimental.enable_op_determinism()
    return network_training.learn(settings, train)


class Network:
    """A trained network."""

    def __init__(self, answer: keras.Model, kept: int) -> None:
        self.kept = kept
        self.description = "\n".join(f"{layer.name}: {_said(layer)}" for layer in answer.layers)
        self.weights = sum(int(np.prod(each.shape)) for each in answer.trainable_weights)
        self._answer = answer

    def predict(self, inputs: Array) -> Array:
        """Probabilities, or numbers in the target's own units."""
        answered: Array = self._answer.predict(inputs, batch_size=_ROWS_AT_ONCE, verbose=0)
        return answered

    def save(self, about: dict[str, Any]) -> list[str]:  # noqa: ARG002 - a .keras file has no place for it; metrics.json has
        """Write model.keras, which `keras.models.load_model` reads."""
        self._answer.save(given.RESULTS / "model.keras")
        return ["model.keras"]


class _Words(keras.callbacks.Callback):
    """Tells each epoch's losses, and remembers the best."""

    def __init__(self, job: network_training.Job) -> None:
        super().__init__()
        self._job = job
        self.epochs = 0
        self.best_epoch = 0
        self._best = math.inf

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keras's own hook."""
        found = logs or {}
        seen = float(found.get("val_loss", math.nan))
        self.epochs = epoch + 1
        if seen < self._best:
            self._best, self.best_epoch = seen, epoch + 1
        self._job.say(epoch + 1, float(found["loss"]), seen)


def train(job: network_training.Job) -> Network:
    """Train by the job."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(job.seed)
    network, answer = tensorflow_networks.build(job)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True) if job.classification else "mean_squared_error"
    network.compile(optimizer=_optimizer(job.parameters), loss=loss)
    words = _Words(job)
    callbacks: list[Any] = [words]
    if job.patience:
        callbacks.append(keras.callbacks.EarlyStopping(patience=job.patience, restore_best_weights=True))
    network.fit(
        job.inputs,
        job.targets,
        validation_data=job.held_back,
        validation_batch_size=_ROWS_AT_ONCE,
        epochs=job.epochs,
        batch_size=job.batch_size,
        class_weight=None if job.class_weights is None else dict(enumerate(job.class_weights.tolist())),
        callbacks=callbacks,
        verbose=0,
    )
    kept = words.best_epoch if job.patience else words.epochs
    if words.epochs < job.epochs:
        print(f"no better for {job.patience} epochs: stopped, the weights of epoch {kept} are kept")
    return Network(answer, kept)


def _said(layer: Any) -> str:
    return f"{type(layer).__name__}, {layer.count_params():,} weights, out {tuple(layer.output.shape[1:])}"


def _optimizer(said: dict[str, Any]) -> Any:
    rate, decay = said["learning_rate"], said["weight_decay"] or None
    if said["optimizer"] == "adamw":
        return keras.optimizers.AdamW(rate, weight_decay=said["weight_decay"])
    if said["optimizer"] == "sgd":
        return keras.optimizers.SGD(rate, momentum=said["momentum"], weight_decay=decay)
    if said["optimizer"] == "rmsprop":
        return keras.optimizers.RMSprop(rate, momentum=said["momentum"], weight_decay=decay)
    return keras.optimizers.Adam(rate, weight_decay=decay)
