"""The table of a cohort as other programs write it, and what is said of one that cannot be read."""

import re

import pytest

from openselfsup.datasets.slides.table import Row, read_table
from openselfsup.errors import UserError

SLIDES = ['s/a.svs', 's/b.svs']


def table(tmp_path, content, **named):
    path = tmp_path / 'slides.csv'
    path.write_bytes(content if isinstance(content, bytes) else content.encode(**named))
    return str(path)


@pytest.mark.parametrize('content', [
    'slide,label,mpp\na.svs,"x; y",0.25\nb,z,\n',
    'slide;label;mpp\r\na.svs;"x; y";0,25\r\nb;z;\r\n',
    '\nslide;label;mpp\na.svs;"x; y";0.25\nb;z;\n',
    'slide;label;mpp\ra.svs;"x; y";0.25\rb;z;\r',
    'slide\tlabel\tmpp\na.svs\tx; y\t0.25\nb\tz\t\n'])
def test_tables_of_excel_in_any_country_are_read(tmp_path, content):
    for encoding in ('utf-8', 'utf-8-sig'):
        found = read_table(table(tmp_path, content, encoding=encoding), SLIDES, None)
        assert found == {'s/a.svs': Row(label='x; y', mpp=0.25), 's/b.svs': Row(label='z')}


@pytest.mark.parametrize('content, told', [
    ('', ": this table is empty; expected a line of names, 'slide' among them, and a line for each "
     'slide'),
    ('\n , \n', ': this table is empty'),
    ('slide,mpp\n', ': this table names no slide; expected a line for each slide below the header'),
    ('Größe;slide\n1;a\n'.encode('latin-1'), ": this table is not in UTF-8; expected a text file, "
     "in Excel saved as 'CSV UTF-8'"),
    ('slides,label\na,x\n', ": no column of this table is called 'slide', it has slides, label; "
     "expected 'slide' in its first line, in place of 'slides'"),
    ('case;label\na;x\n', ": no column of this table is called 'slide', it has case, label; "
     "expected 'slide' in its first line, above what names the slides"),
    ('slide,weight\na,heavy\n', "line 2: weight 'heavy' must be a number from 0 to 1,000,000,000"),
    ('slide,weight,mpp\na,1,-1\n', "line 2: mpp '-1' must be a number from 0 to 1,000"),
    ('slide\tmpp\na\t0,25\n', "line 2: mpp '0,25' must be a number from 0 to 1,000"),
    ('slide,weight,mpp\na,x,nan\n', "line 2: weight 'x' must be a number from 0 to 1,000,000,000 "
     "and mpp 'nan' must be a number from 0 to 1,000")])
def test_a_table_that_cannot_be_used_says_why(tmp_path, content, told):
    with pytest.raises(UserError, match=re.escape(told) + '($|;)'):
        read_table(table(tmp_path, content), SLIDES, None)


def test_a_table_that_is_not_there_names_the_nearest(tmp_path):
    table(tmp_path, 'slide\na\n')
    with pytest.raises(UserError, match="slide.csv: no such table; did you mean 'slides.csv'"):
        read_table(str(tmp_path / 'slide.csv'), SLIDES, None)
    with pytest.raises(UserError, match='slide.csv: no such table$'):
        read_table(str(tmp_path / 'nowhere/slide.csv'), SLIDES, None)
    with pytest.raises(UserError, match='cannot be read .Is a directory'):
        read_table(str(tmp_path), SLIDES, None)


@pytest.mark.parametrize('slides', [['s/a.svs', 's/b/x.dcm'], ['./s/a.svs', './s/b/x.dcm'],
                                    ['{}/s/a.svs', '{}/s/b/x.dcm'],
                                    ['../cohort/s/a.svs', '../cohort/s/b/x.dcm']])
@pytest.mark.parametrize('names', [('{}/s/a.svs', '{}/s/b'), ('./s/a.svs', './s/b/'),
                                   ('s//a.svs', '../cohort/s/b/x.dcm')])
def test_a_path_may_be_written_in_any_way(tmp_path, monkeypatch, slides, names):
    (tmp_path / 'cohort').mkdir()
    monkeypatch.chdir(tmp_path / 'cohort')
    slides = [slide.format(tmp_path / 'cohort') for slide in slides]
    lines = [f'{name.format(tmp_path / "cohort")},{n}\n' for n, name in enumerate(names, 1)]
    found = read_table(table(tmp_path, 'slide,weight\n' + ''.join(lines)), slides, None)
    assert [(path, row.weight) for path, row in found.items()] == [(slides[0], 1), (slides[1], 2)]


def test_a_weight_of_nothing_is_0_and_none_is_1(tmp_path):
    found = read_table(table(tmp_path, 'slide,weight\na,0\nb,\n'), SLIDES, None)
    assert [row.weight for row in found.values()] == [0, 1]
