"""Colour deconvolution of H&E images (Ruifrok & Johnston 2001)."""

import numpy as np

# Absorption of red, green and blue light by haematoxylin, eosin and DAB, of length 1.
ABSORPTION = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
ABSORPTION /= np.linalg.norm(ABSORPTION, axis=1, keepdims=True)


def concentrations(image: np.ndarray) -> np.ndarray:
    """Return the amounts of H, E and DAB, float64 (H, W, 3), in an RGB image 0..255.

    Black counts as 1 of 255, whose optical density is 2.4.
    """
    density = -np.log10(np.maximum(image, 1) / 255)
    return density @ np.linalg.inv(ABSORPTION)


def intensities(amounts: np.ndarray) -> np.ndarray:
    """Return the RGB image, float64 (H, W, 3) cut to [0, 255], of amounts of H, E and DAB."""
    return np.clip(255 * 10 ** -(amounts @ ABSORPTION), 0, 255)


def density_map(scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return what scaling and shifting each stain does to the optical densities of a pixel.

    Args:
        scale: factors of the three concentrations, (3,).
        shift: offsets of the three concentrations, (3,).

    Returns:
        Float64 (3, 4), to be applied to (density of R, G, B, 1).
    """
    linear = np.linalg.inv(ABSORPTION) @ np.diag(scale) @ ABSORPTION
    return np.column_stack([linear.T, shift @ ABSORPTION])
