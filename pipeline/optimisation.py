"""What moves the weights: optimizer, schedule, loss scaler, clipping, moving average."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, PolynomialLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline.checkpoint import Stateful
from pipeline.recipe import Training

FLOAT16_SCALE = 2.0**12  # of the first step; the scaler finds its own from there


def build_optimizer(module: nn.Module, recipe: Training, fused: bool = False) -> Optimizer:
    """SGD with momentum or AdamW over all of a module's parameters."""
    rate, decay = recipe.learning_rate, recipe.weight_decay
    parameters = module.parameters()
    if recipe.optimizer == "sgd":
        return SGD(parameters, rate, recipe.momentum, weight_decay=decay, fused=fused)
    return AdamW(parameters, rate, weight_decay=decay, fused=fused)


def build_schedule(optimizer: Optimizer, recipe: Training) -> LRScheduler:
    """Poly, rate * (1 - step/steps)^0.9, or one cycle up to the rate and down to nearly nothing."""
    if recipe.schedule == "poly":
        return PolynomialLR(optimizer, total_iters=recipe.steps, power=0.9)
    rate = recipe.learning_rate
    # One step more than is taken: the scheduler is advanced once after the last one, too.
    steps = recipe.steps + 1
    return OneCycleLR(optimizer, max_lr=rate, total_steps=steps, cycle_momentum=False)


class Optimisation:
    """Gradients of one step, gathered over its micro-batches, and what they do to the weights.

    Args:
        modules: everything with parameters to optimise.
        recipe: optimizer, schedule, precision, clipping, moving average.
        device: where the modules are.
    """

    def __init__(self, modules: nn.Module, recipe: Training, device: torch.device) -> None:
        self._modules, self._recipe = modules, recipe
        scaled = recipe.precision == "float16"
        # Fused: the scaler tells the optimizer of an overflow without the host in between.
        fused = device.type == "cuda" or scaled
        self._optimizer = build_optimizer(modules, recipe, fused)
        self._schedule = build_schedule(self._optimizer, recipe)
        self._scaler = torch.amp.GradScaler(device.type, FLOAT16_SCALE, enabled=scaled)
        self._average = _moving_average(modules, recipe.ema_decay)

    @property
    def learning_rate(self) -> float:
        """The rate that the next step uses."""
        rate: float = self._optimizer.param_groups[0]["lr"]
        return rate

    @property
    def parts(self) -> dict[str, Stateful]:
        """What a checkpoint must hold beside the modules."""
        parts: dict[str, Stateful] = {"optimizer": self._optimizer, "schedule": self._schedule}
        if self._scaler.is_enabled():
            parts["scaler"] = self._scaler
        if self._average is not None:
            parts["average"] = self._average
        return parts

    def backward(self, total: Tensor) -> None:
        """Add the gradients of a scalar to those of this step."""
        self._scaler.scale(total).backward()

    def discard(self) -> None:
        """Forget the gradients gathered so far."""
        self._optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Move the weights by the gradients gathered, and forget these."""
        if self._recipe.clip_norm is not None:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._modules.parameters(), self._recipe.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.discard()
        self._schedule.step()
        if self._average is not None:
            self._average.update_parameters(self._modules)

    def finish(self) -> None:
        """Leave the moving average, where there is one, in the modules."""
        if self._average is not None:
            self._modules.load_state_dict(self._average.module.state_dict())


def _moving_average(modules: nn.Module, decay: float | None) -> AveragedModel | None:
    if decay is None:
        return None
    return AveragedModel(modules, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
