"""Run ``python -m openselfsup``: the command ``openselfsup`` without its being installed."""

from .cli.main import main

if __name__ == '__main__':
    main()
