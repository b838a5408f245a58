"""Installation: pip install -e ."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
REQUIREMENTS = [line for line in (HERE / 'requirements.txt').read_text().splitlines()
                if line and not line.startswith('#')]

setup(
    name='openselfsup-pathology',
    version='0.1.0',
    description='Self-supervised pretraining on histopathology tiles: PLM, DenseCL, MoCo, CA2CL',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['openselfsup', 'openselfsup.*']),
    python_requires='>=3.10',
    install_requires=REQUIREMENTS,
    extras_require=dict(
        slides=['openslide-python>=1.3', 'openslide-bin'],
        umap=['umap-learn>=0.5'],
        test=['pytest>=8', 'pytest-xdist>=3.5', 'hypothesis>=6.100'],
        dev=['ruff>=0.6']),
)
