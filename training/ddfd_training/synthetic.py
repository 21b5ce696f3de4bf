"""Textured rooms with exact depth, seen by a camera that moves: images for tests and the demo.

Every pixel's depth comes from the ray through its centre; colours are filtered textures under one
lamp with shadows, and outlines are smoothed by four rays a pixel.

Example:
    >>> scene = SyntheticScene(seed=3)
    >>> rgb, depth_m = scene.render(t=0.5, height=120, width=160)
    >>> rgb.shape, depth_m.shape
    ((120, 160, 3), (120, 160))
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from ddfd_training.synthetic_layout import Furniture, furnish
from ddfd_training.synthetic_shapes import Hits, Rays, Room
from ddfd_training.synthetic_textures import TILE_PX, TextureAtlas

FX_PER_WIDTH = 518.86 / 640
"""Focal length over image width of the Kinect camera of NYUv2: the default field of view."""
_CORNERS = ((-0.375, -0.125), (0.125, -0.375), (0.375, 0.125), (-0.125, 0.375))
_AMBIENT = 0.42
_LEVEL_BIAS = -0.5  # interpolation blurs as well: a little finer is a little truer
_SHADOW_STEP = 2


@dataclass(frozen=True)
class _Found:
    """What rays met: distance along the ray, number of the thing, its face; of the rays' shape."""

    t: np.ndarray
    thing: np.ndarray
    face: np.ndarray


class SyntheticScene:
    """A furnished room and a camera's way through it, all from one seed.

    Args:
        seed: Any integer of at least 0; the same seed gives the same pictures.

    Attributes:
        room: The room's walls in world coordinates (x right, y down, z forward, metres).
        furniture: What stands in it, with textures.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.seed = seed
        layout = furnish(rng)
        self.room: Room = layout.room
        self.furniture: list[Furniture] = layout.furniture
        self._lamp = layout.lamp
        self._atlas = TextureAtlas(layout.tiles)
        self._phase = rng.uniform(0, 2 * math.pi, 5)
        # Room faces first (their texture and tile size), then the furniture's.
        self._texture = np.array(
            [layout.room_textures] + [[f.texture] * 6 for f in self.furniture], np.int64
        )
        self._tile_m = np.array(
            [layout.room_tiles_m] + [[f.tile_m] * 6 for f in self.furniture], np.float32
        )

    def pose(self, t: float) -> np.ndarray:
        """Camera to world at time ``t`` in seconds: float64 ``[4, 4]``, smooth in ``t``."""
        a, b, c, d, e = self._phase
        x, y = 0.35 * math.sin(0.45 * t + a), 0.03 * math.sin(1.3 * t + b)
        z = -0.15 + 0.35 * math.sin(0.3 * t + c)
        yaw = 0.2 * math.sin(0.35 * t + d)
        pitch = -0.08 + 0.03 * math.sin(0.7 * t + e)
        cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
        turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        nod = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        pose = np.eye(4)
        pose[:3, :3] = turn @ nod
        pose[:3, 3] = x, y, z
        return pose

    def render(
        self, t: float, height: int = 480, width: int = 640, fx: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Take a picture.

        Args:
            t: Time in seconds; the camera moves by about 0.1 m a second.
            height: Rows.
            width: Columns.
            fx: Focal length in pixels, both ways; by default that of NYUv2's camera for this
                width. The principal point is the image's centre, ((w - 1) / 2, (h - 1) / 2).

        Returns:
            uint8 RGB ``[H, W, 3]`` and float32 depth ``[H, W]`` in metres along the optical axis,
            known everywhere, from about 0.5 to 9 m.
        """
        fx = FX_PER_WIDTH * width if fx is None else fx
        pose = self.pose(t)
        u = (np.arange(width, dtype=np.float32) - (width - 1) / 2) / fx
        v = (np.arange(height, dtype=np.float32) - (height - 1) / 2) / fx
        x, y = np.broadcast_to(u, (height, width)), np.broadcast_to(v[:, None], (height, width))
        rays = _camera_rays(pose, x, y)
        found = self._trace(rays, self._windows(pose, height, width, fx))
        shadow = self._soft_shadow(rays, found)
        colours = self._shade(_flat(rays), _ravel(found), fx, shadow.ravel())
        colours = colours.reshape(height, width, 3)
        # Beside an outline the coarse shadow belongs to either side: there, each pixel its own.
        edge = _outline(found)
        beside = cv2.dilate(edge.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~edge
        part = Rays(rays.origin, *(d[beside] for d in rays[1:]))
        seen = _Found(found.t[beside], found.thing[beside], found.face[beside])
        colours[beside] = self._shade(part, seen, fx)
        smooth = np.zeros((int(edge.sum()), 3), np.float32)
        for across, down in _CORNERS:
            part = _camera_rays(pose, x[edge] + across / fx, y[edge] + down / fx)
            smooth += self._shade(part, self._trace(part, None), fx)
        colours[edge] = smooth / len(_CORNERS)
        return np.clip(np.rint(colours), 0, 255).astype(np.uint8), found.t

    def frames(
        self, count: int, rate_hz: float = 15.0, height: int = 480, width: int = 640
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """``count`` consecutive pictures of the moving camera, ``rate_hz`` a second."""
        for index in range(count):
            yield self.render(index / rate_hz, height, width)

    def _windows(
        self, pose: np.ndarray, height: int, width: int, fx: float
    ) -> list[tuple[slice, slice]]:
        """The part of the image that each piece of furniture can cover."""
        windows = []
        for item in self.furniture:
            seen = (item.shape.bounds() - pose[:3, 3]) @ pose[:3, :3]
            if seen[:, 2].min() < 0.05:
                windows.append((slice(0, height), slice(0, width)))
                continue
            across = seen[:, 0] / seen[:, 2] * fx + (width - 1) / 2
            down = seen[:, 1] / seen[:, 2] * fx + (height - 1) / 2
            spans = []
            for values, size in ((down, height), (across, width)):
                low, high = math.floor(values.min()), math.ceil(values.max()) + 1
                spans.append(slice(min(max(low, 0), size), min(max(high, 0), size)))
            windows.append((spans[0], spans[1]))
        return windows

    def _trace(self, rays: Rays, windows: list[tuple[slice, slice]] | None) -> _Found:
        """The first thing that each ray meets; ``windows`` only for rays of a whole image."""
        t, face = self.room.hit(rays)
        thing = np.zeros(t.shape, np.int16)
        for number, item in enumerate(self.furniture, start=1):
            box: tuple[slice, ...] = (slice(None),) if windows is None else windows[number - 1]
            part = Rays(_part(rays.origin, box), *(d[box] for d in rays[1:]))
            if not part.dx.size:
                continue
            hits: Hits = item.shape.hit(part)
            nearer = hits.t < t[box]
            t[box] = np.where(nearer, hits.t, t[box])
            face[box] = np.where(nearer, hits.face, face[box])
            thing[box] = np.where(nearer, number, thing[box])
        return _Found(t, thing, face)

    def _shade(
        self, rays: Rays, found: _Found, fx: float, shadow: np.ndarray | None = None
    ) -> np.ndarray:
        """Lit colours, float32 ``[n, 3]``, of flat rays; without ``shadow`` it is traced."""
        points = _points(rays, found)
        u, v, normal = self._surfaces(points, found)
        texture = self._texture[found.thing, found.face]
        tile_m = self._tile_m[found.thing, found.face]
        # Footprint of a pixel on the surface, between its short and its long side.
        directions = rays[1:]
        length = np.sqrt(sum(d * d for d in directions))
        slant = np.abs(sum(n * d for n, d in zip(normal, directions, strict=True))) / length
        footprint_m = found.t / fx / np.sqrt(np.maximum(slant, 0.05))
        level = np.log2(footprint_m * (TILE_PX / tile_m)) + _LEVEL_BIAS
        colours = self._atlas.sample(texture, u / tile_m, v / tile_m, level)
        to_lamp = self._to_lamp(points)
        square = sum(d * d for d in to_lamp)
        facing = sum(n * d for n, d in zip(normal, to_lamp, strict=True)) / np.sqrt(square)
        if shadow is None:
            shadow = self._shadow(points, normal)
        lit = np.clip(facing, 0.0, 1.0) * (1.0 - shadow) / (1.0 + 0.06 * square)
        lit_colours: np.ndarray = colours * (_AMBIENT + 0.95 * lit)[:, None]
        return lit_colours

    def _surfaces(
        self, points: list[np.ndarray], found: _Found
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Texture coordinates u, v in metres ``[n]`` and normals ``[3, n]``."""
        u, v = np.empty_like(found.t), np.empty_like(found.t)
        normal = np.empty((3, found.t.size), np.float32)
        shapes = [self.room, *(item.shape for item in self.furniture)]
        for number in np.unique(found.thing):
            at = np.flatnonzero(found.thing == number)
            x, y, z = (p[at] for p in points)
            u[at], v[at], normal[:, at] = shapes[number].surface(x, y, z, found.face[at])
        return u, v, normal

    def _to_lamp(self, points: list[np.ndarray]) -> list[np.ndarray]:
        """Vectors from points to the lamp, by coordinate."""
        return [np.float32(lamp) - p for lamp, p in zip(self._lamp, points, strict=True)]

    def _soft_shadow(self, rays: Rays, found: _Found) -> np.ndarray:
        """Shadow of a whole image ``[H, W]``, traced at half size: a lamp is no point."""
        height, width = found.t.shape
        step = (slice(None, None, _SHADOW_STEP), slice(None, None, _SHADOW_STEP))
        part = _flat(Rays(rays.origin, *(d[step] for d in rays[1:])))
        seen = _ravel(_Found(found.t[step], found.thing[step], found.face[step]))
        points = _points(part, seen)
        shadow = self._shadow(points, self._surfaces(points, seen)[2])
        # Every second pixel was traced: small pixel (i, j) is the large image's (2 i, 2 j).
        moved = np.array([[1, 0, 0], [0, 1, 0]], np.float32) / _SHADOW_STEP
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(
            shadow.reshape(found.t[step].shape),
            moved,
            (width, height),
            flags=flags,
            borderMode=cv2.BORDER_REPLICATE,
        )

    def _shadow(self, points: list[np.ndarray], normal: np.ndarray) -> np.ndarray:
        """1 where furniture stands between a point and the lamp, else 0; ``[n]``."""
        lifted = [p + np.float32(2e-3) * n for p, n in zip(points, normal, strict=True)]
        rays = Rays((lifted[0], lifted[1], lifted[2]), *self._to_lamp(points))
        shadow = np.zeros(points[0].shape, np.float32)
        for item in self.furniture:
            if item.casts_shadow:
                shadow[item.shape.hit(rays).t < 1.0] = 1.0
        return shadow


def _camera_rays(pose: np.ndarray, x: np.ndarray, y: np.ndarray) -> Rays:
    """Rays whose ``t`` is depth: the direction has z = 1 in the camera's frame."""
    turn = pose[:3, :3].astype(np.float32)
    directions = (turn[a, 0] * x + turn[a, 1] * y + turn[a, 2] for a in range(3))
    return Rays(tuple(float(v) for v in pose[:3, 3]), *directions)  # type: ignore[arg-type]


def _part(origin: tuple, box: tuple[slice, ...]) -> tuple:
    """The origins that belong to a part of the rays; one common origin stays as it is."""
    return tuple(o[box] if isinstance(o, np.ndarray) else o for o in origin)


def _points(rays: Rays, found: _Found) -> list[np.ndarray]:
    """Where the rays end, by coordinate."""
    return [rays.origin[a] + found.t * d for a, d in enumerate(rays[1:])]


def _flat(rays: Rays) -> Rays:
    return Rays(rays.origin, rays.dx.ravel(), rays.dy.ravel(), rays.dz.ravel())


def _ravel(found: _Found) -> _Found:
    return _Found(found.t.ravel(), found.thing.ravel(), found.face.ravel())


def _outline(found: _Found) -> np.ndarray:
    """Boolean ``[H, W]``: the pixels on either side of a change of thing or face."""
    key = found.thing.astype(np.int32) * 8 + found.face
    edge = np.zeros(key.shape, bool)
    across, down = key[:, 1:] != key[:, :-1], key[1:] != key[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge
