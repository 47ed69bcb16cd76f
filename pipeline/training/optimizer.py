"""What moves the weights: optimizer, schedule, loss scaler, clipping, moving average."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, PolynomialLR

from pipeline.config.training import TrainingConfig
from pipeline.runtime.checkpoint import Stateful

FLOAT16_SCALE = 2.0**12  # of the first step; the scaler finds its own from there


def build_optimizer(module: nn.Module, training: TrainingConfig) -> Optimizer:
    """Build SGD with momentum, or AdamW, over all of a module's parameters.

    Fused: one pass over the weights (on a CPU 0.2 s in place of 0.5 s for a ResNet101), and the
    scaler tells it of an overflow without the host in between.
    """
    rate, decay = training.learning_rate, training.weight_decay
    parameters = list(module.parameters())
    if training.optimizer == "sgd":
        sgd = SGD(parameters, rate, training.momentum, weight_decay=decay, fused=True)
        for parameter in parameters if training.momentum else ():
            # Without it a first step that overflows in float16 leaves one that nobody has written.
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd
    return AdamW(parameters, rate, weight_decay=decay, fused=True)


def build_schedule(optimizer: Optimizer, training: TrainingConfig) -> LRScheduler:
    """Build poly, rate * (1 - step/steps)^0.9, or one cycle up to the rate and down to nearly 0."""
    if training.schedule == "poly":
        return PolynomialLR(optimizer, total_iters=training.steps, power=0.9)
    rate = training.learning_rate
    # One step more than is taken: the scheduler is advanced once after the last one, too.
    steps = training.steps + 1
    return OneCycleLR(optimizer, max_lr=rate, total_steps=steps, cycle_momentum=False)


class Optimisation:
    """Gradients of one step, gathered over its micro-batches, and what they do to the weights.

    Args:
        modules: everything with parameters to optimise.
        training: optimizer, schedule, precision, clipping, moving average.
        device: where the modules are.
    """

    def __init__(self, modules: nn.Module, training: TrainingConfig, device: torch.device) -> None:
        self.device = device
        self._modules, self._training = modules, training
        scaled = training.precision == "float16"
        self._optimizer = build_optimizer(modules, training)
        self._schedule = build_schedule(self._optimizer, training)
        self._scaler = torch.amp.GradScaler(device.type, FLOAT16_SCALE, enabled=scaled)
        self._average = None if training.ema_decay is None else deepcopy(modules)

    @property
    def learning_rate(self) -> float:
        """Return the rate that the next step uses."""
        rate: float = self._optimizer.param_groups[0]["lr"]
        return rate

    @property
    def parts(self) -> dict[str, Stateful]:
        """Return what a checkpoint must hold beside the modules."""
        parts: dict[str, Stateful] = {"optimizer": self._optimizer, "schedule": self._schedule}
        if self._scaler.is_enabled():
            parts["scaler"] = self._scaler
        if self._average is not None:
            parts["average"] = self._average
        return parts

    def backward(self, total: Tensor) -> None:
        """Add the gradients of a scalar to those of this step."""
        torch.autograd.backward(self._scaler.scale(total))

    def discard(self) -> None:
        """Forget the gradients gathered so far."""
        self._optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Move the weights by the gradients gathered, and forget these."""
        if self._training.clip_norm is not None:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._modules.parameters(), self._training.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.discard()
        self._schedule.step()
        if self._average is not None and self._training.ema_decay is not None:
            _follow(self._average, self._modules, self._training.ema_decay)

    def finish(self) -> None:
        """Leave the moving average, where there is one, in the modules."""
        if self._average is not None:
            self._modules.load_state_dict(self._average.state_dict())


@torch.no_grad()
def _follow(average: nn.Module, modules: nn.Module, decay: float) -> None:
    """Take average <- decay * average + (1 - decay) * modules; counters are copied.

    torch's AveragedModel counts on the host and makes it wait for the device in every step.
    """
    pairs = list(zip(average.state_dict().values(), modules.state_dict().values(), strict=True))
    floats = [pair for pair in pairs if pair[0].is_floating_point()]
    torch._foreach_lerp_([mine for mine, _ in floats], [other for _, other in floats], 1 - decay)
    for mine, other in pairs:
        if not mine.is_floating_point():
            mine.copy_(other)
