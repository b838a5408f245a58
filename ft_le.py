"""The published path of CA2CL's evaluation: it runs `openselfsup evaluate`."""

from openselfsup.cli.published import published
from openselfsup.lineage.commands import evaluation

if __name__ == '__main__':
    published(evaluation)
