"""views.png and matches.png: what the model is about to see."""

from collections.abc import Callable

from ... import distributed
from ...files import NotWritten
from .hook import Hook


class PictureHook(Hook):
    """A hook that draws: a picture that cannot be written is told once, the run goes on."""

    _told = False

    def draw(self, runner, picture: Callable[[], object]) -> None:
        """Call what draws a picture and writes it."""
        try:
            picture()
        except NotWritten as error:
            if not self._told:
                runner.logger.warning('%s; training goes on', error)
            self._told = True


class PicturesHook(PictureHook):
    """Draw the first batch of the run once: its views, and the cells that geometry matches."""

    def before_train(self, runner) -> None:
        """Draw, unless a resumed run has its pictures already."""
        if not distributed.is_main() or (runner.work_dir / 'views.png').exists():
            return
        from ...visualization import draw_batch
        batch = runner.loader.make_batch(0, 0, render='cpu')
        self.draw(runner, lambda: draw_batch(batch, runner.dataset, runner.work_dir,
                                             runner.cells))
