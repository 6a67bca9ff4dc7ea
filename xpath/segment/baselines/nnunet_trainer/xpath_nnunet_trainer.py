"""A trainer for nnU-Net whose length is given in steps and minutes.

nnU-Net's own Python imports this file (``nnUNet_extTrainer``), and nothing else of xpath. Its
schedule is nnU-Net's; an epoch is as many steps as the environment says.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

__all__ = ["XPathTrainer"]

LATEST = "checkpoint_latest.pth"


class XPathTrainer(nnUNetTrainer):  # type: ignore[misc]
    """nnU-Net's trainer, for so many epochs of so many steps, or until the time is over."""

    def __init__(  # nnU-Net reads the names of these arguments, and keeps their values
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device,
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = int(os.environ["XPATH_EPOCHS"])
        self.num_iterations_per_epoch = int(os.environ["XPATH_EPOCH_STEPS"])
        self.num_val_iterations_per_epoch = max(1, self.num_iterations_per_epoch // 5)
        self._end = time.monotonic() + 60 * float(os.environ["XPATH_MINUTES"])

    def on_epoch_end(self) -> None:
        """Stops, saved and ready to go on, when the time is over."""
        super().on_epoch_end()
        if time.monotonic() > self._end and self.current_epoch < self.num_epochs:
            self.save_checkpoint(str(Path(self.output_folder) / LATEST))
            sys.exit(0)

    def perform_actual_validation(self, *_: Any, **__: Any) -> None:
        """Nothing: held-out images are scored by ``evaluate_segmentor``."""
