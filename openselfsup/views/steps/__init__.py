"""The steps of recipes, one file a subject, each class beside its renderings.

A new step is a class in one of these files, decorated with `registered` and named in the file's
``__all__``; a new file is imported here.
"""

from . import blur, colour, distortion, geometric, noise, occlusion, one_of, stain, tone
from .base import (
    GEOMETRIES,
    STEPS,
    GeometricStep,
    Geometry,
    ImageStep,
    Scope,
    Size,
    Step,
    registered,
)
from .blur import *  # noqa: F403
from .colour import *  # noqa: F403
from .distortion import *  # noqa: F403
from .geometric import *  # noqa: F403
from .noise import *  # noqa: F403
from .occlusion import *  # noqa: F403
from .one_of import *  # noqa: F403
from .stain import *  # noqa: F403
from .tone import *  # noqa: F403

__all__ = ['GEOMETRIES', 'STEPS', 'GeometricStep', 'Geometry', 'ImageStep', 'Scope', 'Size',
           'Step', 'registered']
__all__ += blur.__all__
__all__ += colour.__all__
__all__ += distortion.__all__
__all__ += geometric.__all__
__all__ += noise.__all__
__all__ += occlusion.__all__
__all__ += one_of.__all__
__all__ += stain.__all__
__all__ += tone.__all__
