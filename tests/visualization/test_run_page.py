import json
import shlex
from html.parser import HTMLParser
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from openselfsup.cli.main import parse
from openselfsup.errors import UserError
from openselfsup.visualization import page, run_page, write_run_page
from openselfsup.visualization.run_page import SECTIONS, default_commands

SUMMARY = dict(
    title='PLM on the demo tiles', config='configs/demo/plm_r18.py', method='PLM', tiles=121,
    minutes=4.83, loss_start=5.1234, facts={'Queue': '512'},
    knn=dict(protocol='Leave-one-out 3-NN on 51 tiles.',
             rows=[dict(name='after pretraining', accuracy=0.647, strong=True),
                   dict(name='random weights', accuracy=0.45, sd=0.031)]))


class Document(HTMLParser):
    """What a page holds: text, tags, links; checks that every tag is closed in turn."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.links, self.headings, self.text, self.open = [], [], [], '', []
        self.source = path.read_text(encoding='utf-8')
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.links += [value for name, value in attributes if name in ('href', 'src')]
        if tag not in ('meta', 'img'):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == 'h2':
            self.headings.append(data)
        if self.open and self.open[-1] != 'style':
            self.text += data


@pytest.fixture
def work_dir(tmp_path):
    """A work directory with everything that a run leaves."""
    folder = tmp_path / 'work dirs' / 'demo'
    folder.mkdir(parents=True)
    for name in ('views.png', 'matches.png', 'curves.png'):
        cv2.imwrite(str(folder / name), np.zeros((40, 60, 3), np.uint8))
    for name, size in (('config.py', 300), ('train.log', 2500), ('latest.pth', 3_400_000),
                       ('epoch_1.pth', 1000), ('epoch_2.pth', 1000), ('backbone.pth', 10)):
        (folder / name).write_bytes(b'x' * size)
    return folder


def test_the_page_shows_what_ran(work_dir):
    document = Document(write_run_page(work_dir, SUMMARY))
    assert document.headings == ['What the features are worth', 'What the model sees',
                                 'What is matched with what', 'How it went', 'Files', 'Go on']
    for text in ('PLM on the demo tiles', 'configs/demo/plm_r18.py', '121', '4.8', '5.123',
                 'Queue', '512', 'after pretraining', '64.7', '45.0 ± 3.1', 'Leave-one-out 3-NN'):
        assert text in document.text
    images = [tag for tag in document.tags if tag[0] == 'img']
    assert [image[1]['src'] for image in images] == ['views.png', 'matches.png', 'curves.png']
    assert all((i[1]['width'], i[1]['height']) == ('60', '40') and i[1]['alt'] for i in images)


def test_everything_a_page_needs_lies_in_its_folder(work_dir):
    document = Document(write_run_page(work_dir, SUMMARY))
    assert len(document.links) > 8
    for link in document.links:
        assert not link.startswith(('/', 'http', 'file', 'data', '..'))
        assert (work_dir / unquote(link)).is_file()
    assert '//' not in document.source.replace('<!DOCTYPE html>', '')
    assert '@import' not in document.source and 'url(' not in document.source


def test_hostile_text_stays_text(work_dir):
    evil = '<script>alert("x")</script> & <b>'
    (work_dir / 'my #1 backbone?.pth').write_bytes(b'x')
    summary = dict(title=evil, config=evil, method=evil, facts={evil: evil},
                   knn=dict(protocol=evil, rows=[dict(name=evil, accuracy=0.5)]),
                   files={'my #1*.pth': evil}, commands=[dict(what=evil, command=evil)])
    document = Document(write_run_page(work_dir, summary))
    assert {'script', 'b'}.isdisjoint(tag for tag, _ in document.tags)
    assert document.text.count(evil) == 11  # also the title of the document
    assert 'my%20%231%20backbone%3F.pth' in document.links


def test_what_was_learnt_is_shown_before_what_it_is_worth(work_dir):
    for name in ('neighbours_before.png', 'neighbours_after.png', 'components.png', 'likes.png'):
        cv2.imwrite(str(work_dir / name), np.zeros((40, 60, 3), np.uint8))
    found = dict(columns=['a guess', 'after'], said=['More than a guess.'], protocol='Of 5 x 5.',
                 rows=[dict(name='upright', scores=[0.04, 0.257])])
    knn = dict(rows=[dict(name='after', accuracy=0.7, interval=(0.611, 0.788))],
               said=['Better than colours.'])
    document = Document(write_run_page(work_dir, dict(
        SUMMARY, knn=knn, correspondence=found, queries='The first of each class.')))
    assert document.headings[:5] == [
        'What it takes for similar', 'What it tells apart within tissue',
        'Where a place finds its like', 'What the features are worth',
        'Does a place find itself again?']
    images = [attributes['src'] for tag, attributes in document.tags if tag == 'img']
    assert images[:4] == ['neighbours_before.png', 'neighbours_after.png', 'components.png',
                          'likes.png']
    for text in ('The first of each class.', '70.0 (61–79)', 'Better than colours.', 'upright',
                 '4.0', '25.7', 'More than a guess.', 'Of 5 x 5.'):
        assert text in document.text


def test_scores_are_drawn_to_scale(work_dir):
    document = Document(write_run_page(work_dir, SUMMARY))
    rows = [tag for tag in document.tags if tag[0] in ('tr', 'span')]
    bars = [attributes['style'] for tag, attributes in rows if tag == 'span']
    assert bars == ['width:64.7%', 'width:45.0%']
    strong = [i for i, (tag, attributes) in enumerate(rows) if attributes.get('class') == 'strong']
    assert len(strong) == 1 and rows[strong[0] + 1][1]['style'] == 'width:64.7%'


def test_what_is_not_there_leaves_no_trace(tmp_path):
    document = Document(write_run_page(tmp_path, {}))
    assert document.headings == []
    assert [tag for tag, _ in document.tags if tag in ('img', 'table', 'pre', 'dl')] == []
    assert tmp_path.name in document.text


def test_checkpoints_of_many_epochs_share_a_line(work_dir):
    document = Document(write_run_page(work_dir, SUMMARY))
    assert [link for link in document.links if link.startswith('epoch')] == ['epoch_2.pth']
    assert '2 files like this' in document.text
    assert '3.4 MB' in document.text and '2.5 kB' in document.text and '300 B' in document.text


def test_the_summary_is_read_from_the_folder(work_dir):
    (work_dir / 'summary.json').write_text(json.dumps(SUMMARY))
    document = Document(write_run_page(work_dir))
    assert 'after pretraining' in document.text
    (work_dir / 'summary.json').write_text('{"title": ')
    with pytest.raises(UserError, match=r'summary\.json: not valid JSON'):
        write_run_page(work_dir)
    with pytest.raises(UserError, match='no such work directory'):
        write_run_page(work_dir / 'absent')


def test_a_task_adds_its_section(work_dir):
    def segmentation(run):
        return page.section('Segmentation', page.table(
            ('Class', 'Dice'), [(page.escape(name), f'{dice:.3f}')
                                for name, dice in run.summary['dice'].items()]))

    sections = [*SECTIONS[:5], segmentation, *SECTIONS[5:]]
    path = write_run_page(work_dir, dict(SUMMARY, dice={'gland': 0.9123}), sections)
    document = Document(path)
    assert document.headings.index('Segmentation') == 1
    assert '0.912' in document.text


def test_the_commands_of_the_page_exist(work_dir):
    steps = default_commands('configs/my config.py', 'work dirs/demo')
    for step in steps:
        program, name, *arguments = shlex.split(step['command'])
        assert program == 'openselfsup'
        parse(name, arguments)
    commands = [shlex.split(step['command']) for step in steps]
    assert 'configs/my config.py' in commands[0]
    assert commands[-1][-2:] == ['work dirs/demo/latest.pth', 'work dirs/demo/backbone.pth']
    text = Document(write_run_page(work_dir, SUMMARY)).text
    assert default_commands(SUMMARY['config'], work_dir)[0]['command'] in text


def test_run_is_what_a_section_gets(work_dir):
    seen = []
    write_run_page(work_dir, SUMMARY, [lambda run: seen.append(run) or ''])
    assert seen == [run_page.Run(work_dir, SUMMARY)]
