"""Tables of a report: whatever was scored is shown, under its name as text."""

from openselfsup.evaluation.results import Summary
from openselfsup.visualization.report_tables import scores_table


def test_a_score_of_a_user_is_shown_where_a_run_has_it():
    def line(*names: str) -> Summary:
        score = dict(mean=0.5, sd=None, low=0.25, high=0.75)
        return Summary('knn-v1', 'checkpoint', 1.0, True, [0], {name: score for name in names}, [])

    text = scores_table([line('accuracy', 'recall', 'specificity_<5'), line('accuracy', 'recall')],
                        ['with', 'without'])
    assert '>Specificity &lt;5</th>' in text and '>Accuracy</th>' in text
    assert 'Recall' not in text  # that of the classes has a table of its own
    first, second = text.split('<tbody>')[1].splitlines()
    assert first.count('50.0') == 2 and second.count('50.0') == 1 and '>-</td>' in second
