"""Triggers of many channels: one table for all formats, and its storage."""
