"""Procedural textures for the synthetic scenes, and their filtered lookup.

Every texture is a square tile that repeats without a seam. It is kept at all sizes down to one
pixel; a lookup takes the two sizes nearest to the pixel's footprint and blends them, so that far
surfaces neither flicker nor show moire.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

TILE_PX = 512
LEVELS = 10  # 512 .. 1

Texture = Callable[[np.random.Generator], np.ndarray]


def _noise(rng: np.random.Generator, coarse: int, octaves: int, gain: float = 0.6) -> np.ndarray:
    """Tileable multi-octave noise, float32 ``[512, 512]``, mean 0, standard deviation 1."""
    total = np.zeros((TILE_PX, TILE_PX), np.float32)
    for octave in range(octaves):
        cells = min(coarse * 2**octave, TILE_PX)
        grid = rng.normal(size=(cells, cells)).astype(np.float32)
        # Wrapped around by two cells on each side, enlarged, and cut: the tile then repeats.
        wrapped = np.pad(grid, 2, mode="wrap")
        scale = TILE_PX // cells
        large = cv2.resize(wrapped, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        margin = 2 * scale
        total += gain**octave * large[margin : margin + TILE_PX, margin : margin + TILE_PX]
    return (total - total.mean()) / total.std()


def _colour(rng: np.random.Generator, low: float = 60, high: float = 210) -> np.ndarray:
    """A muted colour, float32 ``[3]``."""
    grey = rng.uniform(low, high)
    return np.clip(grey + rng.normal(0, 20, 3), 20, 240).astype(np.float32)


def _blend(weight: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``second`` where ``weight`` is 1, ``first`` where it is 0; ``[512, 512, 3]``."""
    return first + weight[..., None] * (second - first)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the tile in [0, 1)."""
    axis = np.arange(TILE_PX, dtype=np.float32) / TILE_PX
    return axis[:, None] + 0 * axis[None], axis[None] + 0 * axis[:, None]


def plaster(rng: np.random.Generator) -> np.ndarray:
    """A painted wall: nearly one colour, with stains and grain."""
    base = _colour(rng, 150, 225)
    stains = 7 * _noise(rng, 4, 5) + 7 * _noise(rng, 64, 3, 0.9)
    return base + stains[..., None]


def marble(rng: np.random.Generator) -> np.ndarray:
    """Veined stone."""
    veins = np.exp(-((_noise(rng, 4, 6) / 0.22) ** 2))
    body = _colour(rng, 110, 200) + 14 * _noise(rng, 8, 6)[..., None]
    return _blend(0.8 * veins, body, _colour(rng, 40, 100))


def planks(rng: np.random.Generator) -> np.ndarray:
    """A wooden floor: boards of different tone with grain along them."""
    rows, columns = _grid()
    boards = 8
    index = (rows * boards).astype(int)
    shift = rng.uniform(size=boards).astype(np.float32)[index]
    piece = index * 2 + ((columns + shift) % 1.0 > 0.5)
    tone = rng.normal(0, 14, 2 * boards).astype(np.float32)[piece]
    wide = np.pad(_noise(rng, 64, 4, 0.9), ((0, 0), (30, 30)), mode="wrap")
    grain = cv2.blur(wide, (61, 1))[:, 30:-30]
    grain = 16 * grain / grain.std() + 5 * _noise(rng, 8, 6)
    wood = np.array([150, 112, 76], np.float32) * rng.uniform(0.7, 1.25)
    gap = (rows * boards % 1.0 < 0.03) | (np.abs((columns + shift) % 0.5) < 0.003)
    return _blend(0.75 * gap, wood + (tone + grain)[..., None], np.full(3, 30, np.float32))


def bricks(rng: np.random.Generator) -> np.ndarray:
    """A brick wall."""
    rows, columns = _grid()
    courses, length = 12, 6
    course = (rows * courses).astype(int)
    along = columns * length + 0.5 * (course % 2)
    brick = course * length + along.astype(int) % length
    tone = rng.normal(0, 16, courses * length).astype(np.float32)[brick % (courses * length)]
    mortar = (rows * courses % 1.0 < 0.12) | (along % 1.0 < 0.06)
    clay = np.array([158, 88, 66], np.float32) + rng.normal(0, 12, 3).astype(np.float32)
    body = clay + (tone + 10 * _noise(rng, 32, 4))[..., None]
    return _blend(mortar.astype(np.float32), body, np.full(3, 180, np.float32)) + (
        6 * _noise(rng, 64, 3)[..., None]
    )


def checker(rng: np.random.Generator) -> np.ndarray:
    """Tiles in two colours."""
    rows, columns = _grid()
    count = 2 * int(rng.integers(2, 5))
    odd = ((rows * count).astype(int) + (columns * count).astype(int)) % 2
    joint = (rows * count % 1.0 < 0.04) | (columns * count % 1.0 < 0.04)
    tiles = _blend(odd.astype(np.float32), _colour(rng, 40, 110), _colour(rng, 150, 225))
    tiles = _blend(0.6 * joint, tiles, np.full(3, 90, np.float32))
    return tiles + 6 * _noise(rng, 8, 6)[..., None]


def stripes(rng: np.random.Generator) -> np.ndarray:
    """Cloth with stripes of random width."""
    _, columns = _grid()
    edges = np.sort(rng.uniform(size=12)).astype(np.float32)
    palette = np.stack([_colour(rng) for _ in range(4)])
    index = np.searchsorted(edges, columns[0]) % 4
    weave = 8 * np.sin(2 * np.pi * 64 * _grid()[0]) * np.sin(2 * np.pi * 64 * columns)
    return palette[index][None] + (weave + 6 * _noise(rng, 16, 5))[..., None]


def print_page(rng: np.random.Generator) -> np.ndarray:
    """Something like printed text: lines of words in ink on paper, a heading and a picture."""
    page = np.full((TILE_PX, TILE_PX, 3), 232, np.float32)
    ink = _colour(rng, 20, 50)
    top = 20
    while top < TILE_PX - 20:
        height = 18 if rng.uniform() < 0.12 else 8
        left = 24
        while left < TILE_PX - 50:
            word = int(rng.integers(2, 9)) * height // 2
            for letter in range(left, min(left + word, TILE_PX - 24), max(height // 2, 3)):
                stroke = rng.uniform(size=(height, max(height // 2 - 1, 2), 1)) < 0.6
                box = page[top : top + height, letter : letter + stroke.shape[1]]
                box[:] = np.where(stroke[: box.shape[0], : box.shape[1]], ink, box)
            left += word + height
        top += 2 * height
    y, x = (int(v) for v in rng.integers(40, TILE_PX - 220, 2))
    picture = _colour(rng) + 40 * _noise(rng, 4, 6)[..., None]
    page[y : y + 180, x : x + 180] = picture[:180, :180]
    return page + 3 * _noise(rng, 64, 3)[..., None]


def blobs(rng: np.random.Generator) -> np.ndarray:
    """Patches of colour with sharp outlines: a painting, a camouflage."""
    image = np.broadcast_to(_colour(rng), (TILE_PX, TILE_PX, 3)).astype(np.float32)
    for _ in range(4):
        patch = (_noise(rng, 4, 6) > 0.7).astype(np.float32)
        image = _blend(patch, image, _colour(rng, 30, 230))
    return image + 6 * _noise(rng, 32, 4)[..., None]


FLOORS: tuple[Texture, ...] = (planks, checker, marble)
WALLS: tuple[Texture, ...] = (plaster, bricks, stripes, plaster)
THINGS: tuple[Texture, ...] = (blobs, print_page, stripes, checker, marble, bricks, planks)


class TextureAtlas:
    """All textures of a scene at all sizes in one table, looked up by pixel.

    Args:
        tiles: Textures ``[512, 512, 3]`` with values in [0, 255].
    """

    def __init__(self, tiles: Sequence[np.ndarray]) -> None:
        levels = []
        for tile in tiles:
            image = np.clip(tile, 0, 255).astype(np.float32)
            for level in range(LEVELS):
                side = TILE_PX >> level
                small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
                levels.append(small.reshape(-1, 3))
        starts = np.cumsum([0] + [len(level) for level in levels[:-1]])
        self._offsets = starts.astype(np.int32)
        rows = np.concatenate(levels)
        # Four floats a texel: one lookup moves one aligned word.
        self._texels = np.zeros((len(rows), 4), np.float32)
        self._texels[:, :3] = rows

    def sample(
        self, texture: np.ndarray, u: np.ndarray, v: np.ndarray, level: np.ndarray
    ) -> np.ndarray:
        """Filtered colours.

        Args:
            texture: int ``[n]``, number of the texture.
            u: ``[n]``, position in tiles; 1.0 is one repetition.
            v: Likewise.
            level: ``[n]``, log2 of the pixel's footprint in texels; blended between sizes.

        Returns:
            float32 ``[n, 3]`` in [0, 255].
        """
        level = np.clip(level, 0.0, LEVELS - 1.001)
        lower = level.astype(np.int32)
        blend = (level - lower)[:, None].astype(np.float32)
        fine = self._bilinear(texture, u, v, lower)
        fine += blend * (self._bilinear(texture, u, v, lower + 1) - fine)
        return fine[:, :3]

    def _bilinear(
        self, texture: np.ndarray, u: np.ndarray, v: np.ndarray, level: np.ndarray
    ) -> np.ndarray:
        side = np.right_shift(np.int32(TILE_PX), level)
        base = self._offsets[texture * LEVELS + level]
        length = side.astype(np.float32)
        x, y = u * length - np.float32(0.5), v * length - np.float32(0.5)
        left, top = np.floor(x), np.floor(y)
        right_part, low_part = (x - left)[:, None], (y - top)[:, None]
        wrap = side - 1  # sizes are powers of two
        column, row = left.astype(np.int32), top.astype(np.int32)
        columns = (column & wrap, (column + 1) & wrap)
        rows = (base + (row & wrap) * side, base + ((row + 1) & wrap) * side)
        pairs = []
        for start in rows:
            first = self._texels.take(start + columns[0], axis=0)
            first += right_part * (self._texels.take(start + columns[1], axis=0) - first)
            pairs.append(first)
        result: np.ndarray = pairs[0] + low_part * (pairs[1] - pairs[0])
        return result
