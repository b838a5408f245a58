"""dense.html: a dense evaluation on one page that needs no other file."""

from html import escape
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ..evaluation.dense.results import ARRAYS, DenseResults, DenseRow, read_dense
from ..evaluation.dense.scores import paired_difference
from ..evaluation.settings import DENSE_LINEAR
from ..evaluation.table import percent
from ..files import write_text
from . import page
from .canvas import DPI, HAIRLINE, INK, SOFT_INK
from .overlays import class_colors, draw_outlined
from .report_figures import inline_figure, read_any
from .report_style import STYLE

PAGE = 'dense.html'
_SIDE = 220  # of a picture in pixels
_OWN, _OTHERS = '#0072C6', '#8A96A0'


def write_dense_page(folder: str | Path) -> Path:
    """Write ``dense.html`` into the folder of a dense evaluation and return its path.

    Args:
        folder: holds ``dense.json`` and ``dense.npz``; the shown images are read where they lay.

    Raises:
        UserError: there are no results.
    """
    folder = Path(folder)
    results = read_dense(folder)
    with np.load(folder / ARRAYS) as file:
        arrays = dict(file)
    name = Path(results.model['path']).name or 'the baselines'
    title = f'Dense evaluation of {name}'
    out = folder / PAGE
    write_text(out, page.page(title, [
        page.heading(title, f"{results.model['name']}, {results.model['tensors']}"),
        _facts(results), _tables(results, arrays), page.remarks(results.notes),
        _pictures(results, arrays), _definitions(results)], STYLE), 'backslashreplace')
    return out


def _facts(results: DenseResults) -> str:
    data = results.data
    patients = data['test']['patients']
    return page.facts([
        ('Training images', f"{data['train']['tiles']:,}"),
        ('Test images', f"{data['test']['tiles']:,}"), ('Classes', ', '.join(data['classes'])),
        ('Test patients', f'{patients:,}' if patients else 'unknown'),
        ('Training patches', f'{max(row.train_patches for row in results.rows):,}'),
        ('Device', results.environment['device']),
        ('When', results.created.replace('T', ' ')[:16])])


def _setups(results: DenseResults) -> dict[tuple[str, str, float], list[int]]:
    """Return the rows that compare with each other by protocol, feature maps and scale."""
    found: dict[tuple[str, str, float], list[int]] = {}
    for i, row in enumerate(results.rows):
        found.setdefault((row.protocol, row.layers, row.scale), []).append(i)
    return dict(sorted(found.items()))


def _name(row: DenseRow, rows: list[DenseRow]) -> str:
    alike = [other for other in rows if (other.features, other.protocol, other.layers, other.scale)
             == (row.features, row.protocol, row.layers, row.scale)]
    return f'{row.features}, seed {row.seed}' if len(alike) > 1 else row.features


def _tables(results: DenseResults, arrays: dict[str, np.ndarray]) -> str:
    """A table and a picture of the intervals for each protocol, feature maps and scale."""
    parts = [page.paragraph(
        'Dice and IoU of each class come from one confusion matrix of all test pixels; mDice and '
        'mIoU are their means over the classes. Small print: 95 % interval when test cases are '
        'redrawn. The last column is mDice minus that of the first row, redrawn together.',
        'note')]
    draws = arrays['draws_mdice']
    for (protocol, layers, scale), members in _setups(results).items():
        classes = results.data['classes']
        stride = results.rows[members[0]].stride
        header = ['Features', 'mDice', 'mIoU', *(f'Dice {c}' for c in classes), 'Difference']
        lines = []
        for i in members:
            row, first = results.rows[i], members[0]
            cells = [_cell(row.scores['mdice']), _cell(row.scores['miou']),
                     *(_cell(row.by_class[c]['dice']) for c in classes)]
            cells.append('–' if i == first else _difference(results, draws, i, first))
            style = ' class="strong"' if i == first else ''
            lines.append(f'<tr{style}><td>{escape(_name(row, results.rows))}</td>' + ''.join(
                f'<td class="number">{cell}</td>' for cell in cells) + '</tr>')
        head = ''.join(f'<th{" class=number" if i else ""}>{escape(name)}</th>'
                       for i, name in enumerate(header))
        parts.append(f'<p class="step"><b>{escape(protocol)}</b>, feature maps {escape(layers)}, '
                     f'images at scale {scale:g}, a patch every {stride / scale:g} px</p>\n'
                     f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>'
                     + '\n'.join(lines) + '</tbody></table></div>')
    parts.append(inline_figure(_intervals(results), 'Mean Dice of all test pixels, and its 95 % '
                               'interval when test cases are redrawn.'))
    return page.section('Mean Dice of the pixels', *parts)


def _cell(score: dict[str, float | None]) -> str:
    return (f"{percent(score['value'])}<span class=\"interval\">{percent(score['low'])} – "
            f"{percent(score['high'])}</span>")


def _difference(results: DenseResults, draws: np.ndarray, i: int, first: int) -> str:
    found = paired_difference(draws[i], draws[first])
    a, b = (results.rows[k].scores['mdice']['value'] or 0.0 for k in (i, first))
    return (f'{100 * (a - b):+.1f}<span class="interval">{100 * found.low:+.1f} – '
            f'{100 * found.high:+.1f}</span>')


def _intervals(results: DenseResults) -> Figure:
    """Draw the mean Dice of every row with its interval, setups under each other."""
    setups = _setups(results)
    count = sum(map(len, setups.values())) + len(setups)
    inches = 0.5 + 0.19 * count
    figure = Figure(figsize=(6.2, inches), dpi=DPI, facecolor='white')
    panel = figure.add_axes((0.27, 0.4 / inches, 0.71, 1 - 0.45 / inches))
    place, ticks, names = 0, [], []
    for (protocol, layers, scale), members in setups.items():
        panel.text(-0.005, place, f'{protocol}, maps {layers}, scale {scale:g}', fontsize=7,
                   color=INK, weight='bold', ha='left', va='center',
                   transform=panel.get_yaxis_transform())
        for i in members:
            place += 1
            row, score = results.rows[i], results.rows[i].scores['mdice']
            colour = _OWN if i == members[0] else _OTHERS
            if score['value'] is not None and score['low'] is not None:
                panel.plot([100 * score['low'], 100 * score['high']], [place] * 2, color=colour,
                           linewidth=2, solid_capstyle='round')
                panel.plot(100 * score['value'], place, 'o', color=colour, markersize=4.5)
            ticks.append(place)
            names.append(_name(row, results.rows))
        place += 1
    panel.set(yticks=ticks, ylim=(place - 0.4, -0.6))
    panel.set_yticklabels(names, fontsize=7, color=INK)
    panel.tick_params(labelsize=7, length=0, colors=SOFT_INK)
    panel.set_xlabel('mean Dice, %', fontsize=7, color=SOFT_INK)
    panel.grid(axis='x', color=HAIRLINE, linewidth=0.5)
    panel.spines[:].set_visible(False)
    return figure


def _pictures(results: DenseResults, arrays: dict[str, np.ndarray]) -> str:
    """What the features found in some test images, under the outline of the true mask."""
    protocols = [key for key in _setups(results) if key[0] == DENSE_LINEAR]
    key = protocols[0] if protocols else next(iter(_setups(results)))
    seen: dict[str, int] = {}
    for i in _setups(results)[key]:
        seen.setdefault(results.rows[i].features, i)
    classes, images = results.data['classes'], []
    for index in arrays['shown'].tolist():
        image = read_any(str(arrays['test_paths'][index]))
        if image is not None:
            images.append((index, image))
    if not images:
        return ''
    columns = 1 + len(seen)
    width = 1.35 * columns
    ratios = [image.shape[0] / image.shape[1] for _, image in images]
    heights = [1.3 * ratio + 0.05 for ratio in ratios]
    figure = Figure(figsize=(width, sum(heights) + 0.2), dpi=DPI, facecolor='white')
    grid = figure.add_gridspec(len(images), columns, height_ratios=heights, left=0, right=1,
                               bottom=0, top=1 - 0.2 / (sum(heights) + 0.2), wspace=0.04,
                               hspace=0.04)
    colors = class_colors(len(classes))
    for line, (index, image) in enumerate(images):
        truth = arrays[f'truth_{index}']
        for column, (name, row) in enumerate([('image and true outline', None), *seen.items()]):
            found = None if row is None else arrays[f'found_{row}_{index}']
            axes = figure.add_subplot(grid[line, column])
            axes.imshow(draw_outlined(image, truth, found, colors, _SIDE))
            axes.axis('off')
            if line == 0:
                axes.set_title(name, fontsize=6.5, color=INK, pad=2)
    named = range(1, 2) if len(classes) == 2 else range(len(classes))
    legend = ', '.join(f'<b style="color:rgb{colors[i]}">{escape(classes[i])}</b>' for i in named)
    return page.section(
        'What they see', f'<p class="note">Found: {legend}. White line: the true outline. '
        f'{escape(key[0])}, feature maps {escape(key[1])}, scale {key[2]:g}; test images evenly '
        'spaced in their list, none chosen.</p>',
        inline_figure(figure, ', '.join(Path(str(arrays['test_paths'][i])).name
                                        for i, _ in images)))


def _definitions(results: DenseResults) -> str:
    """Every protocol with all its settings, so that the numbers can be had again."""
    parts, seen = [], set()
    for row in results.rows:
        if row.protocol not in seen:
            seen.add(row.protocol)
            lines = '\n'.join(f'{key} = {value}' for key, value in row.settings.items())
            parts.append(f'<p class="step"><b>{escape(row.protocol)}</b></p>\n'
                         f'<pre class="settings">{escape(lines)}</pre>')
    versions = ', '.join(f'{k} {v}' for k, v in results.environment.items())
    return page.section('Protocols', *parts, page.paragraph(versions, 'note'))
