import json
import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.learning.ranking import (
    Checkpoint,
    correlation,
    find_checkpoints,
    main,
    rank,
    spearman,
    write,
)
from openselfsup.errors import UserError


def test_rank_correlations_are_those_of_scipy():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 6, (5, 12)), rng.normal(size=(5, 12))  # with ties
    expected = [spearmanr(a, b).statistic for a, b in zip(first, second)]
    np.testing.assert_allclose(spearman(first, second), expected, atol=1e-12)
    assert math.isnan(spearman(np.ones(4), np.arange(4)))


def test_a_score_that_ranks_runs_need_not_rank_their_checkpoints():
    runs = ['a'] * 4 + ['b'] * 4 + ['c'] * 2  # two checkpoints have no ranks worth comparing
    values = [1., 2, 3, 4, 11, 12, 13, 14, 21, 22]
    found = correlation(values, values, runs)
    assert found.value == found.low == found.high == found.within == 1
    assert (found.checkpoints, found.runs) == (10, 2)
    backwards = correlation([4, 3, 2, 1, 14, 13, 12, 11, 22, 21], values, runs)
    assert backwards.value > 0.7 and backwards.within == -1
    assert backwards.low < backwards.value < backwards.high
    nothing = correlation(np.random.default_rng(0).permutation(40), range(40), ['a'] * 40)
    assert nothing.low < 0 < nothing.high


def test_checkpoints_are_found_with_their_scores(tmp_path):
    lines = [dict(step=0, epoch=0, probe_correspondence=0.1, probe_rankme=3),
             dict(step=4, epoch=1, probe_correspondence=0.2, probe_alpha_req=1.5,
                  probe_alpha_req_crc=0.25, probe_knn=1),
             dict(step=4, epoch=1, loss=3.0),
             dict(step=8, epoch=2, probe_correspondence=0.9),
             dict(step=8, epoch=2, probe_correspondence=0.3, probe_correspondence_half_turn=0.1),
             dict(step=12, epoch=3, probe_correspondence=0.4)]
    (tmp_path / 'metrics.jsonl').write_text(
        '\n'.join(map(json.dumps, lines)) + '\n{"step": 16, "epo')
    for epoch in (1, 2, 4):
        (tmp_path / f'epoch_{epoch}.pth').touch()
    found = find_checkpoints('mine', tmp_path)
    assert [(one.run, one.epoch, one.path.name) for one in found] == [
        ('mine', 1, 'epoch_1.pth'), ('mine', 2, 'epoch_2.pth')]
    assert found[0].scores == dict(correspondence=0.2, alpha_req=-0.5, alpha_req_crc=-0.75)
    assert found[1].scores == dict(correspondence=0.3, correspondence_half_turn=0.1)
    for folder in (tmp_path / 'nowhere', tmp_path.parent):
        with pytest.raises(UserError, match='no checkpoint of this run.*CorrespondenceHook'):
            find_checkpoints('mine', folder)


def test_a_run_that_is_given_twice_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr('sys.argv', ['ranking', f'a={tmp_path}', f'b={tmp_path}/../{tmp_path.name}',
                                     '--data', 'nowhere'])
    with pytest.raises(UserError, match='a run is given twice'):
        main()


def test_tables_say_of_how_many_checkpoints(tmp_path):
    checkpoints = [Checkpoint('a', epoch, tmp_path, dict(rankme=epoch, **(
        dict(half_turn=-epoch) if epoch > 2 else {}), **(dict(rare=1.0) if epoch < 3 else {})))
        for epoch in range(1, 7)]
    probed = [{'dense-knn-v1, last2': 0.5 + one.epoch / 100, 'blind': 0.1,
               **({'of another stride': one.epoch} if one.epoch > 3 else {})}
              for one in checkpoints]
    found = rank(checkpoints, probed)
    assert {score: row['dense-knn-v1, last2'].checkpoints for score, row in found.items()} == {
        'rankme': 6, 'half_turn': 4}
    assert found['half_turn']['of another stride'].checkpoints == 3
    write(tmp_path, checkpoints, probed, images=9)
    text = (tmp_path / 'ranking.md').read_text()
    assert '9 held-out images, of 6 checkpoints of 1 run(s)' in text
    assert '| dense-knn-v1, last2 | rankme | 6 | +1.00 (+1.00 to +1.00) | +1.00 (1) |' in text
    assert '| blind | rankme | 6 | all are equal |  |' in text
    assert '| dense-knn-v1, last2 | half_turn | 4 | -1.00 (-1.00 to -1.00) | -1.00 (1) |' in text
    written = json.loads((tmp_path / 'ranking.json').read_text())
    assert written['correlations']['rankme']['dense-knn-v1, last2']['value'] == 1
    assert written['checkpoints'][2]['mdice'] == {'dense-knn-v1, last2': 0.53, 'blind': 0.1}
    assert written['correlations']['rankme']['blind']['value'] is None
