"""Tiles read straight from whole slides."""

from .dicom import slide_names
from .opening import find_slides, open_slide
from .slide import Level, Region, Slide, SlideError
from .source import Slides
from .tissue import Tissue

__all__ = ['Level', 'Region', 'Slide', 'SlideError', 'Slides', 'Tissue', 'find_slides',
           'open_slide', 'slide_names']
