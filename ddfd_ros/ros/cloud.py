"""Points as a ``sensor_msgs/PointCloud2`` message."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField

try:
    from sensor_msgs_py.point_cloud2 import create_cloud
except ImportError:  # not among the wheels; the bytes are the same without it
    create_cloud = None


def cloud_message(points: np.ndarray, header: Any) -> PointCloud2:
    """The message for points of ``point_cloud.XYZ`` or ``XYZRGB``.

    Args:
        points: ``[N]``, or ``[rows, columns]``: an organized cloud; contiguous.
        header: Assigned as it is.

    Through ``sensor_msgs_py`` where that is installed, else the same bytes are laid out here.
    """
    fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate(points.dtype.names or ())
    ]
    height, width = points.shape if points.ndim == 2 else (1, points.shape[0])
    if create_cloud is None or not points.size:  # it cannot look at no points
        cloud = _plain_cloud(points, header, fields, height, width)
    elif points.ndim == 2:
        # create_cloud takes the first axis for the width: the same memory, in row-major order, has
        # to be shown to it as [width, height].
        cloud = create_cloud(header, fields, points.reshape(width, height))
    else:
        cloud = create_cloud(header, fields, points)
    cloud.is_dense = points.ndim == 1  # an organized cloud has NaN gaps
    return cloud


def _plain_cloud(
    points: np.ndarray, header: Any, fields: list[Any], height: int, width: int
) -> PointCloud2:
    step = points.dtype.itemsize
    cloud = PointCloud2(
        header=header,
        height=height,
        width=width,
        fields=fields,
        is_bigendian=False,
        point_step=step,
        row_step=step * width,
    )
    data = array.array("B")
    data.frombytes(points.view(np.uint8).data if points.size else b"")
    cloud.data = data
    return cloud
