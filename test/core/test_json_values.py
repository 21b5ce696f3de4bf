"""Values as JSON takes them."""

from __future__ import annotations

import json
import math

import numpy as np

from ddfd_ros.core.json_values import clean

VALUES = {1: [0.123456789, math.nan], "b": (123456.7, -math.inf, np.float64(2 / 3)), "n": 1234567}


def test_what_json_cannot_say_becomes_null():
    written = json.loads(json.dumps(clean(VALUES), allow_nan=False))
    assert written == {"1": [0.123456789, None], "b": [123456.7, None, 2 / 3], "n": 1234567}


def test_digits_are_significant_ones_and_whole_numbers_stay():
    assert clean(VALUES, digits=5) == {
        "1": [0.12346, None],
        "b": [123460.0, None, 0.66667],
        "n": 1234567,
    }
