"""Dense results as lines of text for the console."""

from ..table import percent
from .results import DenseResults


def dense_table(results: DenseResults) -> str:
    """Return all rows as a table: mean Dice with its 95 % interval, mean IoU, Dice by class."""
    classes = results.data['classes']
    lines = [['Protocol', 'Features', 'Maps', 'Scale', 'mDice', '95 % interval', 'mIoU',
              *(f'Dice {name}' for name in classes)]]
    for row in results.rows:
        dice, iou = row.scores['mdice'], row.scores['miou']
        lines.append([row.protocol, row.features, row.layers, f'{row.scale:g}',
                      percent(dice['value']), f"{percent(dice['low'])} - {percent(dice['high'])}",
                      percent(iou['value']),
                      *(percent(row.by_class[name]['dice']['value']) for name in classes)])
    widths = [max(map(len, column)) for column in zip(*lines)]
    text = ['  '.join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
            for line in lines]
    text.insert(1, '-' * max(map(len, text)))
    return '\n'.join(text)
