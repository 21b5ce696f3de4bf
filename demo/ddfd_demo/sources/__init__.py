"""Inputs of the demonstration: whatever can be played as a camera."""

from ddfd_demo.sources.base import DemoFrame, Intrinsics, Source, SourceInfo
from ddfd_demo.sources.detect import detect_kind, open_source

__all__ = ["DemoFrame", "Intrinsics", "Source", "SourceInfo", "detect_kind", "open_source"]
