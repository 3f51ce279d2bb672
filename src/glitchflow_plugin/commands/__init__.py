"""The commands of `glitchflow`, one file a group."""
