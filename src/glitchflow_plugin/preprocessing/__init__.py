"""Read, compute, write: from raw data to event sets, channel rankings and spectrogram sets."""
