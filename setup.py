from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

config = ConfigParser()
config.read('settings.ini', encoding='utf-8')
cfg = config['DEFAULT']
readme = Path('README.md')

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'],
    keywords=cfg['keywords'].split(),
    author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'],
    license='Apache-2.0',
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else '',
    long_description_content_type='text/markdown',
    packages=find_packages(include=['diffnb', 'diffnb.*']),
    package_data={'diffnb': ['py.typed', 'weights/*.safetensors']},
    python_requires=f">={cfg['min_python']}", install_requires=cfg['requirements'].split(),
    extras_require={'dev': ' '.join(cfg[f'{kind}_requirements'] for kind in (
                        'dev', 'site', 'hub', 'onnx')).split(),
                    'ode': cfg['ode_requirements'].split(),
                    'fid': cfg['fid_requirements'].split(),
                    'hub': cfg['hub_requirements'].split(),
                    'onnx': cfg['onnx_requirements'].split(),
                    'site': cfg['site_requirements'].split()},
    entry_points={'console_scripts': cfg['console_scripts'].split(),
                  'nbdev': [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"]},
)
