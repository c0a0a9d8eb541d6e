"""Trains a convolutional network of one's own on the digits: what an ml task's own script may look like."""

import argparse
import json
import pathlib

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--batch", type=int, default=32)
batch = parser.parse_args().batch
said = json.loads(pathlib.Path(".hivemind/settings.json").read_text(encoding="utf-8"))
torch.manual_seed(said["seed"])

digits = load_digits()
images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
labels = torch.from_numpy(digits.target)
train_rows, test_rows = train_test_split(
    torch.arange(len(labels)), test_size=0.25, random_state=said["seed"], stratify=labels
)
network = nn.Sequential(
    *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)),
)
optimizer = torch.optim.Adam(network.parameters(), lr=0.002)
for epoch in range(1, said["epochs"] + 1):
    total = 0.0
    for rows in train_rows[torch.randperm(len(train_rows))].split(batch):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(images[rows]), labels[rows])
        loss.backward()
        optimizer.step()
        total += float(loss) * len(rows)
    print(f"epoch {epoch} of {said['epochs']}: loss {total / len(train_rows):.4f}")

network.eval()
with torch.inference_mode():
    right = (network(images[test_rows]).argmax(dim=1) == labels[test_rows]).float().mean().item()
print(f"test accuracy {right:.4f}")
pathlib.Path("results/metrics.json").write_text(json.dumps({"test_accuracy": right}), encoding="utf-8")
torch.save(network.state_dict(), "results/model.pt")
