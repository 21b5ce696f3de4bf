"""What the synthetic scenes are built of: a room, upright boxes and spheres, hit by rays.

World axes as in a camera's optical frame: x right, y down, z forward, metres. A ray is
``origin + t * direction``; directions need not be of unit length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

EPS_M = 1e-4

Number = TypeVar("Number", float, np.ndarray, Any)


class Rays(NamedTuple):
    """Rays from one point or several: directions ``dx, dy, dz`` of any common shape."""

    origin: tuple[np.ndarray | float, np.ndarray | float, np.ndarray | float]
    dx: np.ndarray
    dy: np.ndarray
    dz: np.ndarray


class Hits(NamedTuple):
    """Where rays meet one shape: ``t`` (inf: nowhere) and which face, of the rays' shape."""

    t: np.ndarray
    face: np.ndarray


def _never_zero(direction: np.ndarray) -> np.ndarray:
    """A direction component whose inverse is finite: a ray along a wall meets it very far away."""
    return np.where(direction == 0, np.float32(1e-12), direction)


@dataclass(frozen=True)
class Room:
    """The inside of an axis-aligned box.

    Attributes:
        low: Smallest x, y, z in metres.
        high: Largest x, y, z in metres; y is down, so ``high[1]`` is the floor.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def hit(self, rays: Rays) -> Hits:
        """The wall that a ray from inside meets; face = 2 * axis + (1 if on the high side)."""
        best = np.full(rays.dx.shape, np.inf, np.float32)
        face = np.zeros(rays.dx.shape, np.int8)
        for axis, direction in enumerate(rays[1:]):
            direction = _never_zero(direction)
            positive = direction > 0
            wall = np.where(positive, np.float32(self.high[axis]), np.float32(self.low[axis]))
            t = (wall - rays.origin[axis]) / direction
            nearer = t < best
            best = np.where(nearer, t, best)
            face = np.where(nearer, positive + np.int8(2 * axis), face)
        return Hits(best, face)

    def surface(
        self, x: np.ndarray, y: np.ndarray, z: np.ndarray, face: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Texture coordinates u, v in metres and the normal ``[3, n]`` at hit points ``[n]``."""
        axis = face >> 1
        u = np.where(axis == 0, z, x)
        v = np.where(axis == 1, z, y)
        sign = np.where(face & 1, -1.0, 1.0)
        normal = np.stack([np.where(axis == a, sign, 0.0) for a in range(3)])
        return u, v, normal


@dataclass(frozen=True)
class Box:
    """A box turned about the vertical axis; a thin one is a card or a poster.

    Attributes:
        centre: x, y, z in metres.
        half: Half lengths along its own axes in metres.
        yaw: Angle about the vertical in radians.
    """

    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    yaw: float

    def _turn(self, x: Number, z: Number) -> tuple[Number, Number]:
        """World to own axes."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return c * x - s * z, s * x + c * z

    def hit(self, rays: Rays) -> Hits:
        """First entry from outside (slab method); face = 2 * axis + (1 if on the high side)."""
        offset = [rays.origin[a] - self.centre[a] for a in range(3)]
        ox, oz = self._turn(offset[0], offset[2])
        dx, dz = self._turn(rays.dx, rays.dz)
        enter = np.full(rays.dx.shape, -np.inf, np.float32)
        leave = np.full(rays.dx.shape, np.inf, np.float32)
        face = np.zeros(rays.dx.shape, np.int8)
        starts, ways = (ox, offset[1], oz), (dx, rays.dy, dz)
        for axis, (o, d) in enumerate(zip(starts, ways, strict=True)):
            inverse = 1.0 / _never_zero(d)
            centre = -o * inverse
            reach = self.half[axis] * np.abs(inverse)
            first = centre - reach
            later = first > enter
            leave = np.minimum(leave, centre + reach)
            enter = np.where(later, first, enter)
            face = np.where(later, (d < 0) + np.int8(2 * axis), face)
        missed = (enter >= leave) | (enter < EPS_M)
        return Hits(np.where(missed, np.float32(np.inf), enter), face)

    def surface(
        self, x: np.ndarray, y: np.ndarray, z: np.ndarray, face: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As :meth:`Room.surface`."""
        a, c = self._turn(x - self.centre[0], z - self.centre[2])
        b = y - self.centre[1]
        axis = face >> 1
        u = np.where(axis == 0, c, a)
        v = np.where(axis == 1, c, b)
        sign = np.where(face & 1, 1.0, -1.0)
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        normal = np.stack(
            [
                sign * np.where(axis == 0, cos, np.where(axis == 2, sin, 0.0)),
                np.where(axis == 1, sign, 0.0),
                sign * np.where(axis == 0, -sin, np.where(axis == 2, cos, 0.0)),
            ]
        )
        return u, v, normal

    def bounds(self) -> np.ndarray:
        """Corners ``[8, 3]`` in the world."""
        signs = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)])
        own = signs * np.array(self.half)
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        x, z = c * own[:, 0] + s * own[:, 2], -s * own[:, 0] + c * own[:, 2]
        return np.stack([x, own[:, 1], z], axis=1) + np.array(self.centre)


@dataclass(frozen=True)
class Sphere:
    """A ball.

    Attributes:
        centre: x, y, z in metres.
        radius_m: Radius in metres.
    """

    centre: tuple[float, float, float]
    radius_m: float

    def hit(self, rays: Rays) -> Hits:
        """First entry from outside; there is one face, 0."""
        ox, oy, oz = (rays.origin[a] - self.centre[a] for a in range(3))
        dd = rays.dx * rays.dx + rays.dy * rays.dy + rays.dz * rays.dz
        od = ox * rays.dx + oy * rays.dy + oz * rays.dz
        oo = ox * ox + oy * oy + oz * oz - self.radius_m**2
        root = od * od - dd * oo
        with np.errstate(invalid="ignore"):
            t = (-od - np.sqrt(root)) / dd
        missed = (root <= 0) | (t < EPS_M)
        t = np.where(missed, np.float32(np.inf), t)
        return Hits(t, np.zeros(t.shape, np.int8))

    def surface(
        self, x: np.ndarray, y: np.ndarray, z: np.ndarray, face: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As :meth:`Room.surface`; longitude and latitude as lengths on the surface."""
        normal = np.stack([x, y, z]) - np.array(self.centre)[:, None]
        normal /= self.radius_m
        u = np.arctan2(normal[0], normal[2]) * self.radius_m
        v = np.arcsin(np.clip(normal[1], -1, 1)) * self.radius_m
        return u, v, normal

    def bounds(self) -> np.ndarray:
        """Corners ``[8, 3]`` of the cube around it."""
        return Box(self.centre, (self.radius_m,) * 3, 0.0).bounds()


Shape = Room | Box | Sphere
