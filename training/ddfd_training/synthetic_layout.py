"""Furnishing a synthetic room: what stands where, drawn at random but without collisions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ddfd_training.synthetic_shapes import Box, Room, Sphere
from ddfd_training.synthetic_textures import FLOORS, THINGS, WALLS, plaster

CLEARANCE_M = 0.9
"""Nothing stands nearer than this in front of the camera's middle position."""


@dataclass(frozen=True)
class Furniture:
    """One thing in the room.

    Attributes:
        shape: Its geometry.
        texture: Number of its texture.
        tile_m: Side of the texture's tile in metres.
        casts_shadow: Posters on a wall do not.
    """

    shape: Box | Sphere
    texture: int
    tile_m: float
    casts_shadow: bool = True


@dataclass(frozen=True)
class Layout:
    """A furnished room.

    Attributes:
        room: Its walls.
        room_textures: Texture of the faces -x, +x, ceiling, floor, -z, +z.
        room_tiles_m: Side of their tiles in metres.
        furniture: What stands in it.
        lamp: x, y, z of the lamp in metres.
        tiles: The textures, ``[512, 512, 3]`` each.
    """

    room: Room
    room_textures: list[int]
    room_tiles_m: list[float]
    furniture: list[Furniture]
    lamp: tuple[float, float, float]
    tiles: list[np.ndarray]


class _Builder:
    """Places things on the floor one after the other, keeping their distance."""

    def __init__(self, rng: np.random.Generator, room: Room, textures: range) -> None:
        self._rng = rng
        self._room = room
        self._textures = textures
        self._taken: list[tuple[float, float, float]] = []
        self.furniture: list[Furniture] = []

    def spot(self, radius_m: float, near_m: float, far_m: float) -> tuple[float, float] | None:
        """A free place x, z for something of this radius, or None after thirty attempts."""
        for _ in range(30):
            z = float(self._rng.uniform(near_m + radius_m, far_m - radius_m))
            # Inside the camera's view, and inside the walls.
            reach = min(0.62 * z + 0.2, self._room.high[0] - radius_m - 0.1)
            x = float(self._rng.uniform(-reach, reach))
            if all(math.hypot(x - a, z - b) > radius_m + r for a, b, r in self._taken):
                self._taken.append((x, z, radius_m))
                return x, z
        return None

    def add(self, shape: Box | Sphere, tile_m: float, *, casts_shadow: bool = True) -> None:
        """Put a thing there with a random texture."""
        texture = int(self._rng.choice(self._textures))
        self.furniture.append(Furniture(shape, texture, tile_m, casts_shadow))

    def crate(self, near_m: float, far_m: float) -> None:
        """A box on the floor, now and then with a ball or a smaller box on it."""
        rng, floor = self._rng, self._room.high[1]
        half = rng.uniform((0.15, 0.12, 0.15), (0.45, 0.5, 0.4))
        place = self.spot(float(np.hypot(half[0], half[2])), near_m, far_m)
        if place is None:
            return
        x, z = place
        size = (float(half[0]), float(half[1]), float(half[2]))
        self.add(Box((x, floor - size[1], z), size, float(rng.uniform(0, math.pi))), 0.8)
        top = floor - 2 * size[1]
        small = float(rng.uniform(0.06, 0.8 * min(size[0], size[2])))
        if rng.uniform() < 0.5:
            self.add(Sphere((x, top - small, z), small), 0.4)
        elif rng.uniform() < 0.5:
            cube = (small, small, small)
            self.add(Box((x, top - small, z), cube, float(rng.uniform(0, math.pi))), 0.4)

    def ball(self, near_m: float, far_m: float) -> None:
        """A ball on the floor."""
        radius = float(self._rng.uniform(0.12, 0.32))
        place = self.spot(radius, near_m, far_m)
        if place is not None:
            self.add(Sphere((place[0], self._room.high[1] - radius, place[1]), radius), 0.5)

    def board(self, near_m: float, far_m: float) -> None:
        """A thin upright board that stands on the floor."""
        rng, floor = self._rng, self._room.high[1]
        half = (float(rng.uniform(0.25, 0.5)), float(rng.uniform(0.6, 0.9)), 0.012)
        place = self.spot(half[0], near_m, far_m)
        if place is not None:
            x, z = place
            self.add(Box((x, floor - half[1], z), half, float(rng.uniform(-0.8, 0.8))), 0.9)

    def counter(self) -> None:
        """A table close to the camera at the lower edge of its view, with small things on it."""
        rng, floor = self._rng, self._room.high[1]
        top, depth, half = float(rng.uniform(0.32, 0.45)), 0.28, float(rng.uniform(0.3, 0.6))
        x, z = float(rng.choice((-1, 1)) * rng.uniform(0.2, 0.7)), CLEARANCE_M + depth + 0.1
        self._taken.append((x, z, half))
        self.add(Box((x, (top + floor) / 2, z), (half, (floor - top) / 2, depth), 0.0), 0.7)
        for offset in np.linspace(-half + 0.12, half - 0.12, 3):
            size = float(rng.uniform(0.04, 0.1))
            at = (x + float(offset), z + float(rng.uniform(-0.1, 0.1)))
            if rng.uniform() < 0.5:
                self.add(Sphere((at[0], top - size, at[1]), size), 0.25)
            else:
                tall = size * float(rng.uniform(0.8, 1.8))
                shape = Box(
                    (at[0], top - tall, at[1]), (size, tall, size), float(rng.uniform(0, 3))
                )
                self.add(shape, 0.25)

    def pillar(self, near_m: float, far_m: float) -> None:
        """A square pillar from floor to ceiling."""
        half = float(self._rng.uniform(0.1, 0.2))
        place = self.spot(1.5 * half, near_m, far_m)
        if place is not None:
            low, high = self._room.low[1], self._room.high[1]
            size = (half, (high - low) / 2, half)
            self.add(Box((place[0], (low + high) / 2, place[1]), size, 0.3), 1.0)

    def posters(self) -> None:
        """Pictures on the far wall and on the side walls."""
        rng, room = self._rng, self._room
        for x in np.linspace(0.6 * room.low[0], 0.6 * room.high[0], 3):
            half = (float(rng.uniform(0.25, 0.5)), float(rng.uniform(0.25, 0.45)), 0.01)
            centre = (float(x), float(rng.uniform(-0.5, 0.1)), room.high[2])
            self.add(Box(centre, half, 0.0), 2 * half[0], casts_shadow=False)
        for wall in (room.low[0], room.high[0]):
            half = (0.01, float(rng.uniform(0.3, 0.5)), float(rng.uniform(0.3, 0.7)))
            centre = (wall, float(rng.uniform(-0.4, 0.1)), float(rng.uniform(2.5, 4.5)))
            self.add(Box(centre, half, 0.0), 2 * half[2], casts_shadow=False)


def furnish(rng: np.random.Generator) -> Layout:
    """Draw a room with a floor, walls, and ten to twenty things in it."""
    side, back = float(rng.uniform(2.0, 3.2)), float(rng.uniform(5.0, 8.5))
    room = Room((-side, -1.4, -2.5), (side, float(rng.uniform(0.9, 1.3)), back))
    wall, floor = rng.choice(len(WALLS), 3), int(rng.integers(len(FLOORS)))
    tiles = [FLOORS[floor](rng), *(WALLS[i](rng) for i in wall), plaster(rng)]
    first_thing = len(tiles)
    tiles += [THINGS[int(i)](rng) for i in rng.permutation(len(THINGS))]
    builder = _Builder(rng, room, range(first_thing, len(tiles)))
    builder.counter()
    if rng.uniform() < 0.6:
        builder.pillar(2.2, back - 0.5)
    builder.board(1.5, 3.5)
    builder.board(2.5, back - 0.5)
    for _ in range(3):
        builder.crate(1.5, 3.5)
        builder.crate(3.0, back - 0.3)
        builder.ball(1.4, back - 1.0)
    builder.posters()
    lamp = (float(rng.uniform(-0.8, 0.8)), room.low[1] + 0.15, float(rng.uniform(1.0, 2.5)))
    # faces: -x, +x, ceiling, floor, behind, far wall
    textures = [1, 2, 4, 0, 1, 3]
    tiles_m = [2.0, 2.0, 3.0, 1.6, 2.0, 2.0]
    return Layout(room, textures, tiles_m, builder.furniture, lamp, tiles)
