"""Pictures and pages that show what a run did."""

from .batch import cell_grid, draw_batch, match_views
from .components import component_sheet
from .curves import plot_curves, read_metrics
from .likes import likeness_sheet
from .match_viewer import match_sheet
from .neighbours import neighbour_sheet
from .run_page import write_run_page
from .view_sheet import view_sheet

__all__ = ['cell_grid', 'component_sheet', 'draw_batch', 'likeness_sheet', 'match_sheet',
           'match_views', 'neighbour_sheet', 'plot_curves', 'read_metrics', 'view_sheet',
           'write_run_page']
