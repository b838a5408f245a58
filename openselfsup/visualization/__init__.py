"""Pictures and pages that show what a run did."""

from .batch import cell_grid, draw_batch, match_views
from .curves import plot_curves, read_metrics
from .match_viewer import match_sheet
from .run_page import write_run_page
from .view_sheet import view_sheet

__all__ = ['cell_grid', 'draw_batch', 'match_sheet', 'match_views', 'plot_curves', 'read_metrics',
           'view_sheet', 'write_run_page']
