"""The console scripts of the trainer, which a robot may have without torch."""

from __future__ import annotations

from functools import partial

from ddfd_ros.core.commands import LateCommand

_command = partial(LateCommand, requirements="training.txt")

train = _command("ddfd_training.cli", "main")
evaluate = _command("ddfd_training.evaluate_cli", "main")
evaluate_lenses = _command("ddfd_training.lens_scores_cli", "main")
uncertainty = _command("ddfd_training.uncertainty_cli", "main")
defocus = _command("ddfd_training.defocus_cli", "main")
lens = _command("ddfd_training.lens_cli", "main")
calibrate = _command("ddfd_training.calibration.cli", "main")
onboard = _command("ddfd_training.onboard_cli", "main")
prepare = _command("ddfd_training.prepare_cli", "main")
