"""Trains a Keras network of one's own on the wine data: what an ml task's own script may look like."""

import json
import pathlib

import keras
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

said = json.loads(pathlib.Path(".hivemind/settings.json").read_text(encoding="utf-8"))
keras.utils.set_random_seed(said["seed"])

data = load_wine()
train_x, test_x, train_y, test_y = train_test_split(
    data.data.astype("float32"), data.target, test_size=0.25, random_state=said["seed"], stratify=data.target
)
normalize = keras.layers.Normalization()
normalize.adapt(train_x)
network = keras.Sequential(
    [keras.Input((13,)), normalize, keras.layers.Dense(16, "relu"), keras.layers.Dense(3, "softmax")]
)
network.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])


class Progress(keras.callbacks.Callback):
    """A line for every tenth epoch."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keras's own hook."""
        if logs and epoch % 10 == 9:
            print(f"epoch {epoch + 1} of {said['epochs']}: loss {logs['loss']:.4f}")


network.fit(train_x, train_y, epochs=said["epochs"], batch_size=16, verbose=0, callbacks=[Progress()])
loss, accuracy = network.evaluate(test_x, test_y, verbose=0)
print(f"test accuracy {accuracy:.4f}")
pathlib.Path("results/metrics.json").write_text(json.dumps({"test_accuracy": float(accuracy)}), encoding="utf-8")
network.save("results/model.keras")
