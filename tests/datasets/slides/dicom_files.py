"""Whole slides in DICOM: a series of files, one of each level, as PS3.3 A.32.8 describes them."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid


def write_series(folder: str | Path, image: np.ndarray, mpp: float = 0.5,
                 downsamples: Sequence[int] = (1, 4), tile: int = 256, quality: int = 95,
                 stem: str = 'level') -> list[Path]:
    """Write a slide as TILED_FULL files of JPEG baseline frames.

    Args:
        folder: where to; made if need be.
        image: the base level, uint8 (H, W, 3).
        mpp: its micrometres per pixel.
        downsamples: of the levels, the base first.
        tile: side of the frames.
        quality: of JPEG.
        stem: what the names of files begin with; the number of the level follows.

    Returns:
        The files, of the base first.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    series, study = generate_uid(), generate_uid()
    files = []
    for number, n in enumerate(downsamples):
        level = image if n == 1 else cv2.resize(
            image, (image.shape[1] // n, image.shape[0] // n), interpolation=cv2.INTER_AREA)
        data = _described(level, mpp * n, tile, number)
        data.SeriesInstanceUID, data.StudyInstanceUID = series, study
        data.PixelData = encapsulate(_frames(level, tile, quality))
        files.append(folder / f'{stem}{number}.dcm')
        data.save_as(files[-1], enforce_file_format=True)
    return files


def _frames(level: np.ndarray, tile: int, quality: int) -> list[bytes]:
    """Return the JPEGs of a level, row by row; those at its edges are filled by repeating it."""
    high, wide = (-size % tile for size in level.shape[:2])
    full = np.pad(level, ((0, high), (0, wide), (0, 0)), 'edge')
    return [cv2.imencode('.jpg', full[top:top + tile, left:left + tile, ::-1],
                         [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
                          cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422])[1].tobytes()
            for top in range(0, full.shape[0], tile) for left in range(0, full.shape[1], tile)]


def _described(level: np.ndarray, mpp: float, tile: int, number: int) -> pydicom.FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = pydicom.FileDataset('', {}, file_meta=meta, preamble=b'\0' * 128)
    data.SOPClassUID, data.SOPInstanceUID = (VLWholeSlideMicroscopyImageStorage,
                                             meta.MediaStorageSOPInstanceUID)
    data.Modality, data.Manufacturer, data.PatientID = 'SM', 'nobody', 'P1'
    source = Dataset()  # another series, named before the file's own
    source.SeriesInstanceUID = generate_uid()
    source.is_undefined_length_sequence_item = True
    data.ReferencedSeriesSequence = [source]
    data['ReferencedSeriesSequence'].is_undefined_length = True
    data.ImageType = ['DERIVED', 'PRIMARY', 'VOLUME', 'RESAMPLED' if number else 'NONE']
    data.InstanceNumber = number + 1
    data.Rows = data.Columns = tile
    data.TotalPixelMatrixRows, data.TotalPixelMatrixColumns = level.shape[:2]
    data.TotalPixelMatrixFocalPlanes = data.NumberOfOpticalPaths = 1
    data.NumberOfFrames = -(-level.shape[0] // tile) * -(-level.shape[1] // tile)
    data.DimensionOrganizationType = 'TILED_FULL'
    data.SamplesPerPixel, data.PlanarConfiguration, data.PixelRepresentation = 3, 0, 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.PhotometricInterpretation = 'YBR_FULL_422'
    data.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [mpp / 1e3, mpp / 1e3], 0.001
    shared.PixelMeasuresSequence = [measures]
    data.SharedFunctionalGroupsSequence = [shared]
    light = Dataset()
    light.OpticalPathIdentifier = '1'
    data.OpticalPathSequence = [light]
    return data
