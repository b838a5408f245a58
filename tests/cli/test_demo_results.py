"""What the demo says and draws of its backbone."""

import numpy as np
import pytest
import torch

from openselfsup import shipped
from openselfsup.cli import demo, demo_results
from openselfsup.datasets import ImageFolder
from openselfsup.engine.config import load_config
from openselfsup.engine.config_text import config_text
from openselfsup.engine.runner import Runner
from openselfsup.evaluation.comparison import Estimate
from openselfsup.evaluation.correspondence import Correspondence, joined
from openselfsup.evaluation.knn import leave_one_out_accuracy
from openselfsup.training.launch import Launch


def test_the_untrained_backbone_is_the_one_that_the_run_begins_with(tmp_path):
    cfg = load_config(demo.CONFIG, ['seed=3'])
    (tmp_path / 'config.py').write_text(config_text(cfg))
    run = Runner(cfg, Launch(0, 1, torch.device('cpu')), tmp_path / 'run')
    torch.manual_seed(9)  # what was drawn before does not matter
    found = demo_results.untrained(tmp_path).state_dict()
    began = run.algorithm.backbone.state_dict()
    assert found.keys() == began.keys()
    assert all(torch.equal(found[name], began[name]) for name in found)
    other = demo_results.untrained(tmp_path, seed=4).state_dict()
    assert not torch.equal(other['conv1.weight'], found['conv1.weight'])


@pytest.mark.parametrize(('ends', 'words'), [((0.02, 0.2), 'Better than'),
                                             ((-0.2, -0.02), 'Worse than'),
                                             ((-0.02, 0.2), 'Not told apart from')])
def test_only_an_interval_beside_zero_makes_a_difference(ends, words):
    said = demo_results.verdict(Estimate(sum(ends) / 2, *ends, float('nan')), 'colours')
    assert said.startswith(f'{words} colours: ')
    assert f'95 % interval {100 * ends[0]:+.1f} to {100 * ends[1]:+.1f}.' in said


def test_votes_give_the_leave_one_out_accuracy():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(40, 6, generator=generator), torch.arange(40) % 4
    features[:, :4] += torch.eye(4)[labels]
    right = demo_results.votes(features, labels, 4).argmax(1) == labels.numpy()
    assert right.mean() == leave_one_out_accuracy(features, labels, 3)
    assert 0.25 < right.mean() < 1


def test_correspondence_becomes_a_table_by_turn():
    def counts(right, turn):
        return Correspondence(torch.tensor([4.0]), torch.tensor([right]), torch.tensor([1.0]),
                              torch.tensor([0.5]), torch.tensor([turn]))
    found = demo_results.table(dict(before=[counts(1.0, 0), counts(0.0, 2)],
                                    after=[counts(3.0, 0), counts(2.0, 2)]))
    assert found['columns'] == ['a guess', 'before', 'after']
    assert [(row['name'], row['scores']) for row in found['rows']] == [
        ('all', [0.25, 0.125, 0.625]), ('upright', [0.25, 0.25, 0.75]),
        ('turned by 180°', [0.25, 0.0, 0.5])]
    assert found['said'] == demo_results.found_again(dict(
        before=joined([counts(1.0, 0), counts(0.0, 2)]),
        after=joined([counts(3.0, 0), counts(2.0, 2)])))


def test_more_cells_are_said_to_be_found_only_where_tiles_show_it():
    rng = np.random.default_rng(0)

    def counts(share):
        right = torch.from_numpy(rng.binomial(20, share, 60)).float()
        return Correspondence(torch.full((60,), 20.), right, torch.ones(60), torch.ones(60),
                              torch.zeros(60, dtype=torch.long))
    found = {name: counts(share) for name, share in dict(
        before=0.1, colour=0.5, close=0.3, after=0.3).items()}
    shares = {name: 100 * float(one.right.sum()) / 1200 for name, one in found.items()}
    lead, *said = demo_results.found_again(found)
    assert lead == f"After training {shares['after']:.1f} % of the cells are found."
    for sentence, told, name, other in zip(
            said, ('Better than', 'Worse than', 'Not told apart from'), shares,
            ('the backbone before', 'colour alone', 'the backbone close')):
        assert sentence.startswith(f'{told} {other} ({shares[name]:.1f} %): '
                                   f"{shares['after'] - shares[name]:+.1f} points, 95 % interval ")
    assert len(said) == 3
    # Tiles of which either all cells are found or none say less than as many cells by themselves.
    whole = torch.zeros(60)
    whole[:18] = 20
    found['before'] = found['before']._replace(right=whole.roll(30))
    found['after'] = found['after']._replace(right=torch.cat([whole[:18], whole[18:] + 1.5]))
    assert demo_results.found_again(found)[1].startswith('Not told apart from')


def test_everything_that_is_shown_comes_along():
    source = ImageFolder([str(shipped.ROOT / folder)
                          for folder in (demo_results.TRAIN, demo_results.TEST)])
    assert len(source) == 100
    assert set(demo_results.QUERIES) < set(source.require_classes())
    for names in (demo_results.SHOWN, demo_results.ASKED):
        places = demo_results.places(source, names)
        assert all(source.path(i).endswith(f'{name}.png') for i, name in zip(places, names))
        assert len(set(places)) == len(names)
