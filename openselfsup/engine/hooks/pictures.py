"""views.png and matches.png: what the model is about to see."""

from pathlib import Path

from mmengine.hooks import Hook

from ... import distributed


class PicturesHook(Hook):
    """Draw the first batch of the run once: its views, and the cells that geometry matches."""

    def before_train(self, runner) -> None:
        """Draw, unless a resumed run has its pictures already."""
        work_dir = Path(runner.work_dir)
        if not distributed.is_main() or (work_dir / 'views.png').exists():
            return
        from ...visualization import draw_batch
        loader = runner.loop.dataloader
        draw_batch(loader.make_batch(0, 0, render='cpu'), loader.dataset, work_dir,
                   runner.algorithm)
