from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs' / 'PLM_SSL' / 'r18_bs256_ep200.py'
TOOL = 'tools/print_config.py'


def test_what_is_printed_is_a_config_that_says_the_same(tool, tmp_path):
    done = tool(TOOL, CONFIG, '--cfg-options', 'optimizer.lr=0.125', 'epochs=7')
    assert done.returncode == 0, done.stderr
    printed: dict = {}
    exec(done.stdout, printed)
    assert printed['optimizer']['lr'] == 0.125 and printed['epochs'] == 7
    assert printed['model']['type'] == 'PLM'  # from a base
    assert printed['accumulate'] == 1  # a default
    (tmp_path / 'resolved.py').write_text(done.stdout)
    assert tool(TOOL, tmp_path / 'resolved.py').stdout == done.stdout


def test_mistakes_are_reported_without_a_traceback(tool):
    done = tool(TOOL, CONFIG, '--cfg-options', 'optimizer.lrr=1', 'epohcs=7')
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.startswith('error: ') and 'Traceback' not in done.stderr
    assert "'epochs'" in done.stderr and 'optimizer.lrr' in done.stderr
