"""The published path of CA2CL's pretraining: it runs `openselfsup train`."""

from openselfsup.cli.published import published
from openselfsup.lineage.ca2cl_pretraining import translate

if __name__ == '__main__':
    published(translate)
