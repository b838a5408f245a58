import json
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
TOOL = 'tools/count_parameters.py'
KEYS = ROOT / 'tests' / 'data' / 'golden' / 'plm_r18_checkpoint_keys.json'
R18 = 11_176_512  # torchvision's resnet18 without fc
NECK = 2 * (512 * 512 + 512 + 512 * 128 + 128)
MATCHING = 128 * 128 + 128


def parsed(text: str) -> dict[str, list[int]]:
    """Read a table back: part -> parameters, trainable, buffers."""
    rows = [line.rsplit(maxsplit=3) for line in text.splitlines()[1:] if line[0] != '-']
    return {row[0].strip(): [int(n.replace(',', '')) for n in row[1:]] for row in rows}


def check(table: dict[str, list[int]]) -> None:
    assert table['encoder_q.backbone'][:2] == [R18, R18]
    assert table['encoder_k.backbone'][:2] == [R18, 0]
    assert table['encoder_q.neck'] == [NECK, NECK, 0]
    assert table['encoder_k.matching_neck'] == [MATCHING, 0, 0]
    encoder = R18 + NECK + MATCHING
    assert table['query encoder'][:2] == [encoder, encoder]
    assert table['key encoder'][:2] == [encoder, 0]
    assert table['total'][:2] == [2 * encoder, encoder]


def test_a_config(tool):
    done = tool(TOOL, ROOT / 'configs' / 'PLM_SSL' / 'r18_bs256_ep200.py',
                '--cfg-options', 'model.queue_len=100')
    assert done.returncode == 0, done.stderr
    table = parsed(done.stdout)
    check(table)
    assert table['queue'] == table['queue_dense'] == [0, 0, 100 * 128 + 2]


def test_a_published_checkpoint_has_its_backbone_counted_once(tool, tmp_path):
    state = {name: torch.zeros(shape) for name, shape in json.loads(KEYS.read_text()).items()}
    torch.save(dict(state_dict=state), tmp_path / 'plm.pth')
    table = parsed(tool(TOOL, tmp_path / 'plm.pth').stdout)
    check(table)
    assert 'backbone' not in table
    assert table['queue_dense'] == [0, 0, 16384 * 128 + 2]


def test_a_named_backbone_from_another_folder(tmp_path):
    done = subprocess.run([sys.executable, str(ROOT / TOOL), 'resnet18'], cwd=tmp_path,
                          capture_output=True, text=True, timeout=120)
    assert parsed(done.stdout)['total'][:2] == [R18, R18], done.stderr


def test_what_is_none_of_these_is_refused(tool):
    done = tool(TOOL, 'resnet81')
    assert done.returncode == 2
    assert done.stderr == ("error: 'resnet81' is neither a file nor a backbone; expected a "
                           'config, a checkpoint, or one of resnet18, resnet34, resnet50, '
                           "resnet101, resnext50; did you mean 'resnet18'?\n")
