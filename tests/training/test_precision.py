import logging

import pytest
import torch

from openselfsup.errors import UserError
from openselfsup.training import precision

CPU = torch.device('cpu')


@pytest.mark.parametrize('fast, taken', [(True, 'bf16'), (False, 'off')])
def test_auto_takes_bf16_where_the_device_computes_in_it(monkeypatch, fast, taken):
    monkeypatch.setattr(precision, 'computes_in_bf16', lambda device: fast)
    assert precision.resolve('auto', CPU) == taken
    assert precision.resolve('off', CPU) == 'off'


@pytest.mark.parametrize('fast', [True, False])
def test_imitated_bf16_is_used_where_asked_for_but_said(monkeypatch, caplog, fast):
    monkeypatch.setattr(precision, 'computes_in_bf16', lambda device: fast)
    with caplog.at_level(logging.WARNING):
        assert precision.resolve('bf16', CPU) == 'bf16'
    assert ('several times slower' in caplog.text) is not fast


def test_fp16_on_a_cpu_is_refused():
    with pytest.raises(UserError, match='fp16 needs a GPU'):
        precision.resolve('fp16', CPU)


def test_the_processor_says_whether_it_computes_in_bf16():
    try:
        flags = open('/proc/cpuinfo', encoding='utf-8').read()
    except OSError:
        pytest.skip('there is no /proc/cpuinfo here')
    if 'avx2' not in flags:
        pytest.skip('this is no x86 processor')
    assert precision.computes_in_bf16(CPU) == ('avx512_bf16' in flags)
