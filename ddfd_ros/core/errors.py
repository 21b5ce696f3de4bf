"""The errors that cross layers. Each message says what was expected, what came, and what to do."""

from __future__ import annotations


class DdfdError(Exception):
    """Base of every error this project raises on purpose."""


class ImageFormatError(DdfdError):
    """An image message or array does not have the layout its fields promise."""


class ContractError(DdfdError):
    """A model's contract is malformed or does not fit what it is used for."""


class ModelLoadError(DdfdError):
    """A model file is missing, damaged, or fails its self-test."""


class InferenceError(DdfdError):
    """A loaded model failed on a frame."""


class DatasetError(DdfdError):
    """A dataset folder does not have the layout its loader expects."""
