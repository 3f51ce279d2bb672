"""How a network is trained: `training.config`, which conf/training.yaml explains."""

from typing import Literal

from pydantic import BaseModel, Field

from glitchflow_plugin.verdict import GLITCH_THRESHOLD


class TrainingConfiguration(BaseModel):
    """What the loop goes by; see conf/training.yaml."""

    batch_size: int = Field(default=32, ge=1)
    shuffle_train: bool = True
    pin_gpu_memory: bool = False
    num_workers_dataloader: int = Field(default=0, ge=0)
    loss: Literal["l1_ssim"] = "l1_ssim"
    optimizer: Literal["adadelta", "adam", "adamw", "rmsprop", "sgd"] = "adamw"
    optim_lr: float = Field(default=1e-4, gt=0, allow_inf_nan=False)
    optim_momentum: float = 0.9
    optim_betas: tuple[float, float] = (0.9, 0.999)
    optim_weight_decay: float = Field(default=1e-2, ge=0, allow_inf_nan=False)
    lr_scheduler: Literal["plateau"] | None = "plateau"
    lr_scheduler_gamma: float = Field(default=0.5, gt=0, lt=1)
    lr_scheduler_patience: int = Field(default=5, ge=0)
    dist_backend: Literal["auto", "nccl", "gloo", "mpi"] = "auto"
    dist_timeout: float = 600.0
    gradient_clip: float = Field(default=5.0, gt=0)
    loss_l1: float = 0.8
    loss_ssim: float = 0.2
    loss_floor: float = 1000.0
    loss_variance: float = 0.1
    threshold: float = GLITCH_THRESHOLD
    cache_mib: float = 2048.0
    start_mib: float = Field(default=2048.0, ge=0)
    channels_last: bool = True
    precision: Literal["auto", "float32", "bf16"] = "auto"
    compile: bool = False
    balance: Literal["none", "event", "class"] = "none"
    labels: str | None = None
    truth: str | None = None
    shuffle_mib: float | None = Field(default=None, gt=0)
    warmup_epochs: float = Field(default=0.0, ge=0)
    early_stopping: int | None = Field(default=None, ge=1)
    ema: float | None = Field(default=None, gt=0, lt=1)
