"""Streaming Moonshine: the same weights, taught to hear in passes what they hear at once."""
