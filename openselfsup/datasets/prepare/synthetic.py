"""Synthetic glands: pictures that everything downstream can learn, with exact instance masks.

A gland is a wavy closed curve. From the distance to its outline follow, from outside to
inside, a basal row of dark nuclei, pale cytoplasm with goblet vacuoles, and a white lumen.
Around the glands lies pink fibrous stroma with thin spindle nuclei. Everything is drawn at
twice the size and reduced, the masks are sampled from the same shapes.
"""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ...claims import IN_USE, claimed
from ...errors import UserError
from ...progress import progress

MARKER = 'SYNTHETIC.txt'
SCALE = 2  # everything is drawn at this multiple of the final size

# RGB of an average H&E stain.
STROMA, FIBRE, SPINDLE = (226, 176, 203), (206, 138, 178), (122, 84, 150)
CYTOPLASM, NUCLEUS = (196, 138, 190), (88, 58, 132)
LUMEN, VACUOLE = (246, 240, 246), (228, 212, 232)


def draw_glands(size: int, rng: np.random.Generator,
                hard: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image.

    Args:
        size: its side in pixels, at least 64.
        rng: decides everything.
        hard: irregular shapes, some without lumen, as in poorly differentiated tumours.

    Returns:
        The image, uint8 [size, size, 3] RGB, and its instance ids, uint8 [size, size], 0 for
        stroma.
    """
    side = size * SCALE
    image = _stroma(side, rng)
    ids = np.zeros((side, side), np.uint8)
    blocked = np.zeros((side, side), np.uint8)
    wanted = int(rng.integers(3, 8))
    for _ in range(200):
        if ids.max() == wanted:
            break
        outline, radius = _outline(side, rng, wobble=0.16 if hard else 0.08)
        shape: np.ndarray = np.zeros_like(ids)
        cv2.fillPoly(shape, [outline], 1)
        # A gland cut by the border must still show enough to be recognised.
        if shape.sum() < 0.45 * np.pi * radius ** 2 or (shape & blocked).any():
            continue
        ids[shape > 0] = ids.max() + 1
        gap = int(rng.integers(2, 7)) * SCALE
        margin = cv2.dilate(shape, np.ones((2 * gap + 1, 2 * gap + 1), np.uint8))
        blocked = np.maximum(blocked, margin)
        _gland(image, shape, outline, radius, rng, has_lumen=not (hard and rng.random() < 0.35))
    image = _stain(image, rng)
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    noise = rng.normal(0, 3.0, (size, size, 1)) + rng.normal(0, 1.5, (size, size, 3))
    image = np.clip(image + noise, 0, 255).astype(np.uint8)
    small = np.ascontiguousarray(ids[SCALE // 2::SCALE, SCALE // 2::SCALE])
    return image, _renumbered(small)


def write_glas_layout(folder: str | Path, counts: tuple[int, int, int] = (40, 12, 8),
                      size: int = 160, seed: int = 0) -> Path:
    """Write synthetic images in the official layout of GlaS.

    ``{train,testA,testB}_N.bmp``, ``..._anno.bmp`` and ``Grade.csv`` in one flat folder, and a
    file that tells them from the real ones. testB and a third of the training images are hard.

    Args:
        folder: made if missing; must be empty or hold synthetic images.
        counts: images of train, testA and testB.
        size: side of the images in pixels.
        seed: decides every image, whatever the counts.

    Raises:
        UserError: the folder holds something else, or another process draws there.
    """
    folder = Path(folder)
    with claimed(folder, 'drawing glands'):
        if not (folder / MARKER).exists() and any(p.name != IN_USE for p in folder.iterdir()):
            raise UserError('this folder holds something else than synthetic images',
                            where=str(folder), expected='an empty or missing folder')
        _draw_all(folder, counts, size, seed)
    return folder


def _draw_all(folder: Path, counts: tuple[int, int, int], size: int, seed: int) -> None:
    (folder / MARKER).write_text('Synthetic glands in the layout of GlaS, drawn by '
                                 'openselfsup prepare; not tissue.\n', encoding='utf-8')
    grades = ['name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)']
    jobs = [(split, i, part) for part, (split, count) in
            enumerate(zip(('train', 'testA', 'testB'), counts)) for i in range(1, count + 1)]
    for split, i, part in progress(jobs, 'drawing'):
        rng = np.random.default_rng((seed, part, i))
        hard = split == 'testB' or (split == 'train' and i % 3 == 0)
        image, ids = draw_glands(size, rng, hard)
        Image.fromarray(image).save(folder / f'{split}_{i}.bmp')
        Image.fromarray(ids).save(folder / f'{split}_{i}_anno.bmp')
        grades.append(f'{split}_{i}, {i}, {"malignant" if hard else "benign"}, synthetic')
    (folder / 'Grade.csv').write_text('\n'.join(grades) + '\n', encoding='utf-8')


def _stroma(side: int, rng: np.random.Generator) -> np.ndarray:
    """Pink ground with fibres that run in slowly turning directions, float32 [side, side, 3]."""
    angle = cv2.GaussianBlur(rng.normal(size=(side, side)).astype(np.float32), (0, 0), side / 6)
    angle = angle / (angle.std() + 1e-6) * 0.7 + rng.uniform(0, np.pi)
    # Line integral convolution, coarsely: average the noise along the direction field.
    noise = cv2.GaussianBlur(rng.normal(size=(side, side)).astype(np.float32), (0, 0), 1.6)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    dx, dy = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    fibres = sum((cv2.remap(noise, x + s * dx, y + s * dy, cv2.INTER_LINEAR,
                            borderMode=cv2.BORDER_REFLECT) for s in range(-18, 19, 3)),
                 start=np.zeros_like(noise))
    fibres = np.clip(0.5 + 0.28 * fibres / fibres.std(), 0, 1)[..., None]
    image = _float32(STROMA) * (1 - fibres) + _float32(FIBRE) * fibres
    patches = cv2.GaussianBlur(rng.normal(size=(side, side)).astype(np.float32), (0, 0), side / 12)
    image += (patches / patches.std() * 5)[..., None]
    for _ in range(int(side * side / 3200)):
        cx, cy = rng.integers(0, side, 2)
        length = rng.uniform(3, 6.5) * SCALE
        _ellipse(image, (cx, cy), (length, rng.uniform(0.9, 1.7) * SCALE),
                 float(np.degrees(angle[cy, cx])), _varied(SPINDLE, rng, 14))
    return image


def _outline(side: int, rng: np.random.Generator, wobble: float) -> tuple[np.ndarray, float]:
    """A wavy closed curve, int32 [P, 2], and its mean radius."""
    radius = side * rng.uniform(0.10, 0.19)
    centre = rng.uniform(-0.02 * side, 1.02 * side, 2)
    theta = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    r = np.ones_like(theta)
    for k in range(2, 7):
        r += wobble / (k - 1) ** 0.8 * rng.normal() * np.cos(k * theta + rng.uniform(0, 2 * np.pi))
    r = np.clip(r, 0.5, 1.6) * radius
    stretch, turn = rng.uniform(0.75, 1.3), rng.uniform(0, np.pi)
    x, y = r * np.cos(theta) * stretch, r * np.sin(theta) / stretch
    points = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 1)
    return np.round(points + centre).astype(np.int32), radius


def _gland(image: np.ndarray, shape: np.ndarray, outline: np.ndarray, radius: float,
           rng: np.random.Generator, has_lumen: bool) -> None:
    """Paint one gland of the given shape into the image."""
    depth = cv2.distanceTransform(np.pad(shape, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    # The border of the image is no outline of the gland: measure from the curve itself.
    reach = int(radius * 2)
    (x0, y0), (x1, y1) = outline.min(0) - reach, outline.max(0) + reach
    whole = np.zeros((y1 - y0, x1 - x0), np.uint8)
    cv2.fillPoly(whole, [outline - (x0, y0)], 1)
    wide = cv2.distanceTransform(whole, cv2.DIST_L2, 5)
    rows, columns = np.nonzero(shape)
    depth[rows, columns] = wide[rows - y0, columns - x0]
    inside = shape > 0
    thickness = radius * rng.uniform(0.38, 0.52)
    ragged = cv2.GaussianBlur(rng.normal(size=shape.shape).astype(np.float32), (0, 0), 2.5 * SCALE)
    ragged *= 1.3 * SCALE / (ragged.std() + 1e-6)
    tone = cv2.GaussianBlur(rng.normal(size=shape.shape).astype(np.float32), (0, 0), 1.5)
    tone = (tone / tone.std() * 6)[..., None]
    image[inside] = (_float32(_varied(CYTOPLASM, rng, 8)) + tone)[inside]
    lumen = inside & (depth + ragged > thickness)
    if has_lumen:
        # The brush border is a thin darker line between cells and lumen.
        brim = inside & (np.abs(depth + ragged - thickness) < 1.1 * SCALE)
        image[lumen] = (_float32(LUMEN) + tone * 0.3)[lumen]
        image[brim] = _float32(_varied((176, 112, 172), rng, 8))
        if rng.random() < 0.5:  # secretion
            _blobs(image, lumen, rng, (214, 170, 204), 3)
        _vacuoles(image, inside, depth, thickness, rng)
    rows_of_nuclei = [2.8 * SCALE] if has_lumen else np.arange(2.8, radius / SCALE, 5.5) * SCALE
    for level in rows_of_nuclei:
        _nuclei(image, wide, (x0, y0), level, inside, rng)


def _nuclei(image: np.ndarray, depth: np.ndarray, origin: tuple[int, int], level: float,
            inside: np.ndarray, rng: np.random.Generator) -> None:
    """Paint a row of nuclei along the curve of the given depth, each pointing inwards."""
    found, _ = cv2.findContours((depth > level).astype(np.uint8), cv2.RETR_EXTERNAL,
                                cv2.CHAIN_APPROX_NONE)
    gy, gx = np.gradient(cv2.GaussianBlur(depth, (0, 0), 2.0 * SCALE))
    for curve in found:
        points = curve.reshape(-1, 2)
        at = rng.uniform(0, 2)
        while at < len(points):
            x, y = points[int(at)]
            at += rng.uniform(3.4, 5.2) * SCALE / 1.15
            along = float(np.degrees(np.arctan2(gy[y, x], gx[y, x])))
            inwards = rng.uniform(0.0, 1.8) * SCALE
            centre = (x + origin[0] + inwards * np.cos(np.radians(along)),
                      y + origin[1] + inwards * np.sin(np.radians(along)))
            axes = (rng.uniform(2.1, 3.1) * SCALE, rng.uniform(1.2, 1.75) * SCALE)
            _ellipse(image, centre, axes, along + rng.normal(0, 12), _varied(NUCLEUS, rng, 16),
                     inside)


def _vacuoles(image: np.ndarray, inside: np.ndarray, depth: np.ndarray, thickness: float,
              rng: np.random.Generator) -> None:
    """Paint pale goblet vacuoles between nuclei and lumen."""
    rows, columns = np.nonzero(inside & (depth > 6.0 * SCALE) & (depth < thickness - SCALE))
    count = int(len(rows) / (30 * SCALE ** 2) * rng.uniform(0, 0.8))
    for i in rng.integers(0, max(len(rows), 1), count if len(rows) else 0):
        radius = rng.uniform(1.4, 2.4) * SCALE
        _ellipse(image, (columns[i], rows[i]), (radius, radius * rng.uniform(0.7, 1)),
                 rng.uniform(0, 180), _varied(VACUOLE, rng, 8), inside)


def _blobs(image: np.ndarray, where: np.ndarray, rng: np.random.Generator,
           color: tuple[int, int, int], count: int) -> None:
    rows, columns = np.nonzero(where)
    for i in rng.integers(0, max(len(rows), 1), count if len(rows) else 0):
        axes = rng.uniform(2, 5, 2) * SCALE
        _ellipse(image, (columns[i], rows[i]), tuple(axes), rng.uniform(0, 180),
                 _varied(color, rng, 8), where)


def _ellipse(image: np.ndarray, centre: tuple[float, float], axes: tuple[float, float],
             angle: float, color: np.ndarray, where: np.ndarray | None = None) -> None:
    """Fill an ellipse with a slightly darker rim, inside the mask ``where`` only."""
    reach = int(max(axes)) + 2
    x, y = int(round(centre[0])), int(round(centre[1]))
    x0, y0 = max(x - reach, 0), max(y - reach, 0)
    part = image[y0:y + reach + 1, x0:x + reach + 1]
    if not part.size or x + reach < 0 or y + reach < 0:
        return
    drawn = np.zeros(part.shape[:2], np.uint8)
    size = (max(round(axes[0]), 1), max(round(axes[1]), 1))
    cv2.ellipse(drawn, (x - x0, y - y0), size, angle, 0, 360, 2, -1)
    cv2.ellipse(drawn, (x - x0, y - y0), size, angle, 0, 360, 1, 1)
    if where is not None:
        drawn[~where[y0:y + reach + 1, x0:x + reach + 1]] = 0
    part[drawn == 2] = color
    part[drawn == 1] = color * 0.88


def _float32(color: tuple[int, int, int] | np.ndarray) -> np.ndarray:
    return np.asarray(color, np.float32)


def _varied(color: tuple[int, int, int], rng: np.random.Generator, sd: float) -> np.ndarray:
    return np.clip(_float32(color) + rng.normal(0, sd) + rng.normal(0, sd / 4, 3), 0, 255)


def _stain(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Vary the strength and the colour of the stain, in optical density."""
    density = -np.log(np.clip(image, 1, 255) / 255)
    return 255 * np.exp(-density * rng.uniform(0.8, 1.25) * rng.uniform(0.93, 1.07, 3))


def _renumbered(ids: np.ndarray) -> np.ndarray:
    """Make the ids 1, 2, ... without gaps, 0 stays 0."""
    known = np.unique(ids[ids > 0])
    return np.searchsorted(known, ids).astype(np.uint8) + (ids > 0).astype(np.uint8)
