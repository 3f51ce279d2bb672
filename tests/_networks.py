"""Each network at its smallest."""

NETWORKS = {
    "coupling": {
        "features": 4,
        "frame_size": 64,
        "filter_size": 65,
        "event_gain": True,
        "filter_rate": 0.1,
        "fitted_start": True,
        "slow_context": True,
    },
    "deep_decoder": {"base": 4, "features": 8},
    "linear": {},
    "plain_unet": {"base": 4, "depth": 2},
    "resnet": {"base": 4, "blocks": 1},
    "shallow_decoder": {"base": 4},
    "stft_unet": {"frame_size": 64, "base": 4, "depth": 2},
    "tcn": {"features": 4, "blocks": 4},
    "transfer": {"frame_size": 64},
    "unet": {"base": 4, "depth": 2},
    "wiener": {"filter_size": 65},
}
