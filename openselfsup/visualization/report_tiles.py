"""Pictures of a report: neighbours, worst mistakes, and all test tiles as the features see them."""

from html import escape

import numpy as np

from . import page
from .evaluated import Evaluated, main_row, row_in_words
from .report_figures import feature_maps, has_umap, thumbnail

NEIGHBOUR_ROWS, MISTAKES = 12, 12


def neighbours(run: Evaluated) -> str:
    """Test tiles and the training tiles most similar to them."""
    if run.arrays is None:
        return ''
    arrays, classes = run.arrays, run.results.data['classes']
    strips = []
    for i in _spread_over_classes(arrays['labels'], NEIGHBOUR_ROWS):
        label = int(arrays['labels'][i])
        cells = [f'<div class="query">{thumbnail(str(arrays["test_paths"][i]), classes[label])}'
                 f'<b>{escape(classes[label])}</b></div>']
        for j in arrays['neighbours'][i]:
            other = int(arrays['neighbour_labels'][j])
            same = other == label
            image = thumbnail(str(arrays['neighbour_paths'][j]), classes[other],
                              'same' if same else 'other')
            mark = '✓' if same else '✗'
            cells.append(f'<div>{image}{mark} {escape(classes[other])}</div>')
        strips.append(f'<div class="strip">{"".join(cells)}</div>')
    return page.section('Nearest neighbours', page.paragraph(
        'Left a test tile, then the labelled training tiles that the features hold most alike '
        '(cosine). Dashed: another class.', 'note'), *strips)


def mistakes(run: Evaluated) -> str:
    """The test tiles that were classified wrongly with the greatest certainty."""
    if run.arrays is None:
        return ''
    arrays, classes = run.arrays, run.results.data['classes']
    said = arrays['probabilities'].argmax(1)
    certainty = np.where(said != arrays['labels'], arrays['probabilities'].max(1), -1)
    order = [int(i) for i in np.argsort(-certainty)[:MISTAKES] if certainty[i] >= 0]
    if not order:
        return page.section('Worst mistakes', page.paragraph('Not one test tile is wrong.'))
    cards = []
    for i in order:
        truth, wrong = classes[int(arrays['labels'][i])], classes[int(said[i])]
        cards.append(f'<div class="card">{thumbnail(str(arrays["test_paths"][i]), truth)}'
                     f'<b>{escape(truth)}</b> taken for <b>{escape(wrong)}</b>, '
                     f'{certainty[i]:.0%} sure</div>')
    return page.section('Worst mistakes', page.paragraph(row_in_words(main_row(run)), 'note'),
                        f'<div class="cards">{"".join(cards)}</div>')


def maps(run: Evaluated) -> str:
    """PCA, t-SNE and, where installed, UMAP of the test features."""
    if run.arrays is None:
        return ''
    figures = feature_maps(run.arrays['features'], run.arrays['labels'],
                           run.results.data['classes'])
    if not figures:
        return ''
    inside = '\n'.join(figures)
    return page.section(
        'The test tiles as the features see them', f'<div class="maps">{inside}</div>',
        '' if has_umap() else page.paragraph(
            'There is no UMAP here because umap-learn is not installed: '
            'pip install umap-learn, then run `openselfsup report` on this folder.', 'note'))


def _spread_over_classes(labels: np.ndarray, count: int) -> list[int]:
    """Return tiles of every class in turn, the first ones of each."""
    own = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    rounds = max(1, count // len(own))
    return [int(tiles[i]) for tiles in own for i in range(min(rounds, len(tiles)))][:max(
        count, len(own))]
