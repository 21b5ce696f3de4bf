"""Draw the pictures of the documentation: ``python docs/make_figures.py`` (needs the trainer).

Every picture is of a scene made by this project's own renderer; no data set is shown.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch

from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_training.optics import render_defocus
from ddfd_training.synthetic import SyntheticScene

HERE = Path(__file__).parent / "images"
ROOMS = (4, 12, 23, 31)
"""Seeds of the rooms shown; training uses others."""


def renderer(path: Path) -> None:
    """One scene, its depth, and three photographs of it focused at 2, 4 and 8 m."""
    rgb, depth_m = SyntheticScene(seed=4).render(0.0, 480, 640, 520.0)
    figure, axes = plt.subplots(2, 3, figsize=(13, 7.2), layout="constrained")
    axes[0, 0].imshow(rgb)
    axes[0, 0].set_title("all in focus")
    shown = axes[0, 1].imshow(depth_m, cmap="turbo", vmin=0.5, vmax=10)
    axes[0, 1].set_title("depth")
    figure.colorbar(shown, ax=axes[0, 1], label="m", shrink=0.8)
    sharp = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
    depth = torch.from_numpy(depth_m)[None, None]
    for axis, name in zip(axes.flat[2:5], ("nyu-2m", "nyu-4m", "nyu-8m"), strict=True):
        image = render_defocus(sharp, depth, LENS_PRESETS[name])[0].permute(1, 2, 0)
        axis.imshow(image.clamp(0, 1).numpy())
        axis.set_title(f"f 15 mm, f/2.8, focus {LENS_PRESETS[name].focus_distance_m:g} m")
    for axis in axes.flat[:5]:
        axis.axis("off")
    distance_m = np.linspace(0.5, 10, 300)
    for name in ("nyu-2m", "nyu-4m", "nyu-8m"):
        blur_px = LENS_PRESETS[name].coc_px(distance_m)
        axes[1, 2].plot(distance_m, blur_px, label=f"focus {name[4:-1]} m")
    axes[1, 2].set(xlabel="distance in m", ylabel="blur diameter in px", ylim=(0, 25))
    axes[1, 2].set_title("circle of confusion")
    axes[1, 2].grid(alpha=0.3)
    axes[1, 2].legend()
    figure.savefig(path, dpi=75)
    plt.close(figure)


def answers(path: Path) -> None:
    """The demonstration's picture, on rooms that no model was trained on."""
    with tempfile.TemporaryDirectory() as folder:
        rooms = Path(folder) / "rooms"
        for kind in ("rgb", "depth"):
            (rooms / kind).mkdir(parents=True)
        for seed in ROOMS:
            rgb, depth_m = SyntheticScene(seed).render(0.0)
            cv2.imwrite(str(rooms / "rgb" / f"{seed:03d}.png"), rgb[..., ::-1])
            millimetres = np.rint(depth_m * 1000).astype(np.uint16)
            cv2.imwrite(str(rooms / "depth" / f"{seed:03d}.png"), millimetres)
        command = [sys.executable, "-m", "ddfd_demo", "--input", str(rooms), "--out", folder]
        subprocess.run([*command, "--pacing", "wait"], check=True)
        picture = cv2.imread(str(Path(folder) / "demo.png"))
    scale = 1600 / picture.shape[1]
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(path), small, [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    HERE.mkdir(parents=True, exist_ok=True)
    answers(HERE / "demo.jpg")
    renderer(HERE / "renderer.png")
